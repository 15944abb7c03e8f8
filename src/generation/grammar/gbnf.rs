//! llama.cpp's grammars (GBNF) as Lark.
//!
//! A rule that does not recur becomes a terminal, so that it is matched as one regular expression; what recurs becomes a
//! rule, whose terminals take the longest text that they match.
use super::gbnf_words::{Word, words};
use std::{
    collections::HashMap,
    fmt::{self, Write},
};

/// Most rules.
const MAX_RULES: usize = 1000;
/// Deepest parentheses.
const MAX_DEPTH: usize = 20;
/// Most times anything is repeated.
const MAX_REPEATS: u32 = 10_000;

/// Whether `grammar` has GBNF's `::=`, which no rule of Lark has.
pub(super) fn is_gbnf(grammar: &str) -> bool {
    let lines = grammar.lines().map(|line| line.split('"').next().unwrap_or_default());
    lines.filter(|line| !line.trim_start().starts_with('#')).any(|line| line.contains("::="))
}

/// The same grammar in Lark.
///
/// # Errors
/// What is not understood, in a sentence.
pub(super) fn to_lark(grammar: &str) -> Result<String, String> {
    let mut parser = Parser { words: words(grammar)?, at: 0, names: HashMap::new(), depth: 0 };
    let rules = parser.rules()?;
    let names = parser.names;
    let by_number = |number: usize| {
        let name = names.iter().find(|(_, of)| **of == number);
        name.map_or("", |(name, _)| name.as_str())
    };
    let root = *names.get("root").ok_or("the grammar has no rule `root`")?;
    if let Some(missing) = (0..names.len()).find(|number| !rules.contains_key(number)) {
        return Err(format!("the grammar has no rule `{}`", by_number(missing)));
    }
    let regular = regular(&rules);
    let mut lark = format!("start: {}\n", Named(root, &regular));
    for (number, body) in &rules {
        // Writing to a string cannot fail.
        let _ = writeln!(lark, "{}: {}", Named(*number, &regular), Written(body, &regular));
    }
    Ok(lark)
}

type Rules = std::collections::BTreeMap<usize, Choice>;

/// Alternatives.
struct Choice(Vec<Sequence>);
/// One after the other.
struct Sequence(Vec<(Part, Repeat)>);

enum Part {
    /// JSON's way to write a string.
    Text(String),
    /// A regular expression for one character.
    Class(String),
    Rule(usize),
    Group(Choice),
}

/// At least and, where there is a limit, at most so often.
#[derive(Clone, Copy, PartialEq)]
struct Repeat(u32, Option<u32>);

const ONCE: Repeat = Repeat(1, Some(1));

struct Parser {
    words: Vec<Word>,
    at: usize,
    names: HashMap<String, usize>,
    depth: usize,
}

impl Parser {
    fn rules(&mut self) -> Result<Rules, String> {
        let mut rules = Rules::new();
        while let Some(word) = self.words.get(self.at).cloned() {
            let Word::Defined(name) = word else {
                return Err(format!("expected `name ::= …`, found {word}"));
            };
            self.at += 1;
            let number = self.number(&name)?;
            let body = self.choice()?;
            if rules.insert(number, body).is_some() {
                return Err(format!("rule `{name}` is there twice"));
            }
        }
        Ok(rules)
    }

    fn number(&mut self, name: &str) -> Result<usize, String> {
        let next = self.names.len();
        let number = *self.names.entry(name.to_owned()).or_insert(next);
        if number < MAX_RULES {
            return Ok(number);
        }
        Err(format!("a grammar may have {MAX_RULES} rules"))
    }

    fn choice(&mut self) -> Result<Choice, String> {
        let mut choice = vec![self.sequence()?];
        while self.words.get(self.at) == Some(&Word::Or) {
            self.at += 1;
            choice.push(self.sequence()?);
        }
        Ok(Choice(choice))
    }

    fn sequence(&mut self) -> Result<Sequence, String> {
        let mut parts = Vec::new();
        while let Some(part) = self.part()? {
            let repeat = match self.words.get(self.at) {
                Some(Word::Repeat(least, most)) => Repeat(*least, *most),
                _ => ONCE,
            };
            let Repeat(least, most) = repeat;
            if repeat != ONCE {
                self.at += 1;
            }
            if least.max(most.unwrap_or(0)) > MAX_REPEATS {
                return Err(format!("anything may be repeated {MAX_REPEATS} times"));
            }
            if most.is_some_and(|most| most < least) {
                return Err(format!(
                    "{least} repetitions are more than at most {}",
                    most.unwrap_or(0)
                ));
            }
            parts.push((part, repeat));
        }
        Ok(Sequence(parts))
    }

    fn part(&mut self) -> Result<Option<Part>, String> {
        let part = match self.words.get(self.at).cloned() {
            Some(Word::Text(text)) => Part::Text(text),
            Some(Word::Class(class)) => Part::Class(class),
            Some(Word::Name(name)) => Part::Rule(self.number(&name)?),
            Some(Word::Open) => return self.group().map(Some),
            Some(Word::Repeat(..)) => return Err("there is nothing to repeat".into()),
            Some(Word::Close) if self.depth == 0 => return Err("a `)` closes nothing".into()),
            Some(Word::Or | Word::Close | Word::Defined(_)) | None => return Ok(None),
        };
        self.at += 1;
        Ok(Some(part))
    }

    fn group(&mut self) -> Result<Part, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("parentheses may be {MAX_DEPTH} deep"));
        }
        (self.at, self.depth) = (self.at + 1, self.depth + 1);
        let inner = self.choice()?;
        if self.words.get(self.at) != Some(&Word::Close) {
            return Err("a `(` is never closed".into());
        }
        (self.at, self.depth) = (self.at + 1, self.depth - 1);
        Ok(Part::Group(inner))
    }
}

/// For each rule, whether it is the same as some regular expression because it does not recur.
fn regular(rules: &Rules) -> Vec<bool> {
    let mut regular = vec![false; rules.len()];
    loop {
        let more: Vec<usize> = rules
            .iter()
            .filter(|(number, body)| !regular[**number] && body.uses_only(&regular))
            .map(|(number, _)| *number)
            .collect();
        if more.is_empty() {
            return regular;
        }
        for number in more {
            regular[number] = true;
        }
    }
}

impl Choice {
    fn uses_only(&self, rules: &[bool]) -> bool {
        let mut parts = self.0.iter().flat_map(|sequence| &sequence.0);
        parts.all(|(part, _)| match part {
            Part::Text(_) | Part::Class(_) => true,
            Part::Rule(number) => rules[*number],
            Part::Group(inner) => inner.uses_only(rules),
        })
    }
}

/// A rule's name in Lark: terminals are in capitals.
struct Named<'a>(usize, &'a [bool]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.1[self.0] { 'T' } else { 'r' }, self.0)
    }
}

/// A body in Lark.
struct Written<'a>(&'a Choice, &'a [bool]);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Choice(choice), regular) = self;
        for (index, Sequence(parts)) in choice.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            if parts.is_empty() {
                f.write_str("\"\"")?;
            }
            for (index, (part, Repeat(least, most))) in parts.iter().enumerate() {
                if index > 0 {
                    f.write_str(" ")?;
                }
                if *most == Some(0) {
                    f.write_str("\"\"")?;
                    continue;
                }
                match part {
                    Part::Text(text) => f.write_str(text)?,
                    Part::Class(class) => write!(f, "/{class}/")?,
                    Part::Rule(number) => write!(f, "{}", Named(*number, regular))?,
                    Part::Group(inner) => write!(f, "({})", Written(inner, regular))?,
                }
                match (*least, *most) {
                    (1, Some(1)) => Ok(()),
                    (0, Some(1)) => f.write_str("?"),
                    (0, None) => f.write_str("*"),
                    (1, None) => f.write_str("+"),
                    (least, None) => write!(f, "{{{least},}}"),
                    (least, Some(most)) => write!(f, "{{{least},{most}}}"),
                }?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_do_not_recur_become_terminals() {
        let gbnf = r#"
# a list of numbers
root   ::= "[" ws item ("," ws item)* "]"   # flat
item   ::= num | root
num    ::= "-"? [0-9]{1,3} ("." [0-9]+)?
ws     ::= [ \t\n]*
"#;
        let lark = "start: r0\n\
            r0: \"[\" T1 r2 (\",\" T1 r2)* \"]\"\n\
            T1: /[\\x{20}\\x{9}\\x{A}]/*\n\
            r2: T3 | r0\n\
            T3: \"-\"? /[0-9]/{1,3} (\".\" /[0-9]/+)?\n";
        assert_eq!(to_lark(gbnf).expect("a grammar"), lark);
        assert_eq!(
            to_lark("root ::= | a\na ::= \"x\"{0}").expect("a grammar"),
            "start: T0\nT0: \"\" | T1\nT1: \"\"\n"
        );
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (gbnf, expected) in [
            ("item ::= \"a\"", "no rule `root`"),
            ("root ::= item", "no rule `item`"),
            ("root ::= \"a\"\nroot ::= \"b\"", "`root` is there twice"),
            ("root ::= (\"a\"", "never closed"),
            ("root ::= \"a\")", "closes nothing"),
            ("root ::= *", "nothing to repeat"),
            ("root ::= \"a\"{3,2}", "more than at most 2"),
            ("root ::= \"a\"{1,100000}", "repeated 10000 times"),
            ("\"a\" root ::= \"b\"", "expected `name ::= …`"),
        ] {
            let said = to_lark(gbnf).expect_err(gbnf);
            assert!(said.contains(expected), "{gbnf}: {said}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
        assert!(to_lark(&deep).expect_err("too deep").contains("20 deep"));
        let many: Vec<String> = (0..2000).map(|i| format!("r{i} ::= \"a\"")).collect();
        assert!(to_lark(&many.join("\n")).expect_err("too many").contains("1000 rules"));
    }

    #[test]
    fn lark_is_not_taken_for_gbnf() {
        assert!(is_gbnf("root ::= \"a\""));
        assert!(is_gbnf("# comment\nroot\n  ::= \"a\""));
        for lark in ["start: \"::=\"", "start: /a/", "# root ::= a\nstart: /a/"] {
            assert!(!is_gbnf(lark), "{lark}");
        }
    }
}
