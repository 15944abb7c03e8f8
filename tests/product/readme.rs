//! README's tables say what `--help` and the router say.
use clap::{Arg, Command, CommandFactory};
use lorad::{cli::Cli, http::ROUTES};
use std::fmt::Write;

/// What can be set; arguments that are only tolerated, and the model without its flag, set nothing of their own.
fn settings(serve: &Command) -> impl Iterator<Item = &Arg> {
    let shown = |arg: &&Arg| arg.get_long().is_some() && !arg.is_hide_set();
    serve.get_arguments().filter(|arg| arg.get_id() != "help").filter(shown)
}

/// One row for every setting of `lorad serve`, in the order of its help.
fn settings_table() -> String {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").expect("there is a `serve`");
    let mut table = String::from("| flag | variable | default | what |\n|---|---|---|---|\n");
    for setting in settings(serve) {
        let flag = setting.get_long().expect("filtered");
        let variable = setting.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
        let defaults =
            setting.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy()));
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        let aliases = setting.get_visible_aliases().unwrap_or_default();
        let flags = [&[flag][..], &aliases].concat().join("`, `--");
        let switch = setting.get_action().takes_values();
        writeln!(
            table,
            "| `--{flags}` | {} | {} | {} |",
            variable.unwrap_or_default(),
            if switch { defaults.collect::<Vec<_>>().join(", ") } else { "off".into() },
            help.replace('|', "\\|").replace('\n', " "),
        )
        .expect("a string grows");
    }
    table
}

/// One row for every route, in the order of the router's table.
fn routes_table() -> String {
    let mut table = String::from("| route | what |\n|---|---|\n");
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        writeln!(table, "| `{} {path}` | {} |", route.method, route.purpose)
            .expect("a string grows");
    }
    table
}

#[test]
fn the_routes_table_is_the_router() {
    let readme = include_str!("../../README.md");
    let table = routes_table();
    assert!(readme.contains(&table), "README.md lacks this table:\n\n{table}");
}

#[test]
fn nothing_is_left_to_fill_in() {
    assert!(!include_str!("../../README.md").contains("@@"));
}

#[test]
fn the_settings_table_is_the_help() {
    let readme = include_str!("../../README.md");
    let table = settings_table();
    assert!(readme.contains(&table), "README.md lacks this table:\n\n{table}");
}

#[test]
fn every_setting_has_a_variable_and_a_help_text() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").expect("there is a `serve`");
    for setting in settings(serve) {
        assert!(setting.get_help().is_some(), "{} has no help", setting.get_id());
        let variable = setting.get_env().map(|name| name.to_string_lossy().into_owned());
        let named = variable.as_deref().is_some_and(|name| name.starts_with("LORAD_"));
        assert!(named, "{} has no LORAD_ variable", setting.get_id());
    }
}
