//! How models write calls, and what a setting says about it.
use clap::ValueEnum;

/// A way of writing calls. Each is what a family of chat templates shows its models.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ToolCallFormat {
    /// `<tool_call>`, an object with `name` and `arguments`, `</tool_call>`, as often as there are calls.
    Hermes,
    /// An object with `name` and `parameters` that begins the answer or follows `<|python_tag|>`; `;` between several.
    Llama3,
    /// `[TOOL_CALLS]` and a list of objects with `name` and `arguments`.
    Mistral,
    /// An object with `name` and `arguments` that begins the answer, or a list of them.
    Json,
}

/// What `--tool-call-format` says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ToolCallSetting {
    /// What the chat template makes of a call.
    #[default]
    Auto,
    /// [`ToolCallFormat::Hermes`].
    Hermes,
    /// [`ToolCallFormat::Llama3`].
    Llama3,
    /// [`ToolCallFormat::Mistral`].
    Mistral,
    /// [`ToolCallFormat::Json`].
    Json,
    /// Tools are refused.
    None,
}

/// The settings of tool calls.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct ToolCallConfig {
    /// How the base writes tool calls; auto is as its chat template does, none refuses tools.
    #[arg(
        long,
        env = "LORAD_TOOL_CALL_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub tool_call_format: ToolCallSetting,
}

/// What stands around the objects of a format.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Shape {
    /// What announces calls anywhere in an answer.
    pub(super) lead: Option<&'static str>,
    /// What may follow each call.
    pub(super) tail: Option<&'static str>,
    /// Whether calls may begin an answer without being announced.
    pub(super) bare: bool,
    /// Whether calls stand in a list.
    pub(super) list: List,
    /// What stands between calls outside a list.
    pub(super) separator: Option<char>,
    /// What the arguments are called; both names are read everywhere.
    pub(super) arguments: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum List {
    Never,
    Maybe,
    Always,
}

impl ToolCallFormat {
    /// All of them, those with marks of their own first.
    pub(super) const ALL: [Self; 4] = [Self::Hermes, Self::Mistral, Self::Llama3, Self::Json];

    pub(super) fn shape(self) -> &'static Shape {
        match self {
            Self::Hermes => &Shape {
                lead: Some("<tool_call>"),
                tail: Some("</tool_call>"),
                bare: false,
                list: List::Never,
                separator: None,
                arguments: "arguments",
            },
            Self::Llama3 => &Shape {
                lead: Some("<|python_tag|>"),
                tail: None,
                bare: true,
                list: List::Never,
                separator: Some(';'),
                arguments: "parameters",
            },
            Self::Mistral => &Shape {
                lead: Some("[TOOL_CALLS]"),
                tail: None,
                bare: false,
                list: List::Always,
                separator: None,
                arguments: "arguments",
            },
            Self::Json => &Shape {
                lead: None,
                tail: None,
                bare: true,
                list: List::Maybe,
                separator: None,
                arguments: "arguments",
            },
        }
    }

    /// What the setting calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::Llama3 => "llama3",
            Self::Mistral => "mistral",
            Self::Json => "json",
        }
    }

    /// Whether the format's templates take no call whose id is not nine letters and digits.
    pub fn has_short_ids(self) -> bool {
        self == Self::Mistral
    }
}
