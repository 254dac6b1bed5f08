//! Reads RON into a tree, going on after a mistake so that one run reports them all.

mod token;

use crate::{
    code,
    parse::token::{Token, tokens},
    report::Finding,
    source::{SourceId, Span},
    tree::{Field, Kind, Value, Word},
};

/// Deepest nesting; a job has about ten levels, and the stack has room for many more.
const DEPTH: usize = 100;

/// Reads the one value of a text; what could not be read is [`Kind::Broken`].
pub fn parse(text: &str, source: SourceId, findings: &mut Vec<Finding>) -> Value {
    let tokens = tokens(text, source, findings);
    let mut parser = Parser { tokens, at: 0, depth: 0, open: Vec::new(), findings };
    let value = parser.value();
    let (token, span) = parser.current();
    let is_torn = parser.findings.iter().any(|finding| finding.code == code::UNCLOSED);
    if token != Token::End && !is_torn && !matches!(value.kind, Kind::Broken) {
        let message = format!("expected the end of the file, found {}", shown(&token));
        parser.findings.push(Finding::new(code::SYNTAX, message).at(span, "one value is enough"));
    }
    value
}

struct Parser<'t> {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    /// Brackets that close what is open, innermost last.
    open: Vec<char>,
    findings: &'t mut Vec<Finding>,
}

impl Parser<'_> {
    fn current(&self) -> (Token, Span) {
        self.tokens[self.at].clone()
    }

    fn next_is(&self, ahead: usize, mark: char) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((Token::Mark(c), _)) if *c == mark)
    }

    fn advance(&mut self) -> (Token, Span) {
        let current = self.current();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        current
    }

    fn report(&mut self, code: &'static str, span: Span, message: &str, label: &str) {
        self.findings.push(Finding::new(code, message).at(span, label));
    }

    fn value(&mut self) -> Value {
        let (token, span) = self.current();
        if self.depth == DEPTH {
            self.report(code::SYNTAX, span, "this is nested too deeply", "");
            self.at = self.tokens.len() - 1;
            return Value::new(span, Kind::Broken);
        }
        self.depth += 1;
        let value = self.value_of(token, span);
        self.depth -= 1;
        value
    }

    fn value_of(&mut self, token: Token, span: Span) -> Value {
        let kind = match token {
            Token::Mark('(') => return self.record(None),
            Token::Mark('[') => return self.list(),
            Token::Mark('{') => return self.map(),
            Token::Word(text) => {
                self.advance();
                return self.word(Word { text, span });
            }
            Token::Text(text) => Kind::Text(text),
            Token::Character(c) => Kind::Character(c),
            Token::Integer(value) => Kind::Integer(value),
            Token::Float(value) => Kind::Float(value),
            Token::Mark(_) | Token::Stray(_) | Token::End => {
                let message = format!("expected a value, found {}", shown(&token));
                self.report(code::SYNTAX, span, &message, "");
                self.skip();
                return Value::new(span, Kind::Broken);
            }
        };
        self.advance();
        Value::new(span, kind)
    }

    fn word(&mut self, word: Word) -> Value {
        match word.text.as_str() {
            "true" => Value::new(word.span, Kind::Bool(true)),
            "false" => Value::new(word.span, Kind::Bool(false)),
            _ if self.next_is(0, '(') => self.record(Some(word)),
            _ => {
                let span = word.span;
                Value::new(span, Kind::Record { name: Some(word), fields: Vec::new() })
            }
        }
    }

    /// Skips to the comma or the closing bracket that ends what cannot be read.
    fn skip(&mut self) {
        let mut open = 0;
        loop {
            match self.current().0 {
                Token::End => return,
                Token::Mark('(' | '[' | '{') => open += 1,
                Token::Mark(',' | ')' | ']' | '}') if open == 0 => return,
                Token::Mark(')' | ']' | '}') => open -= 1,
                _ => {}
            }
            self.advance();
        }
    }

    /// Reads entries up to the closing bracket; returns the place of the bracket.
    fn entries(&mut self, open: Span, close: char, entry: impl FnMut(&mut Self)) -> Span {
        self.open.push(close);
        let end = self.entries_to(open, close, entry);
        self.open.pop();
        end
    }

    /// A bracket that closes something further out is left to it.
    fn entries_to(&mut self, open: Span, close: char, mut entry: impl FnMut(&mut Self)) -> Span {
        loop {
            let (token, span) = self.current();
            match token {
                Token::Mark(c) if c == close => return self.advance().1,
                Token::Mark(')' | ']' | '}') => {
                    let message = format!("expected `{close}`, found {}", shown(&token));
                    let finding = Finding::new(code::UNCLOSED, message).at(span, "");
                    self.findings.push(finding.at(open, "to close this"));
                    if matches!(token, Token::Mark(c) if self.open.contains(&c)) {
                        return span;
                    }
                    self.advance();
                    self.at += usize::from(self.next_is(0, ','));
                    continue;
                }
                Token::End => {
                    let message = format!("`{close}` is missing");
                    self.report(code::UNCLOSED, open, &message, "this is not closed");
                    return span;
                }
                // A name with a colon in a list is a field of the record around it.
                Token::Word(_) if close == ']' && self.next_is(1, ':') => {
                    let message = "`]` is missing";
                    self.report(code::UNCLOSED, open, message, "this is not closed");
                    return span;
                }
                Token::Mark(',') => {
                    self.report(code::SYNTAX, span, "expected a value, found `,`", "");
                    self.advance();
                    continue;
                }
                _ => {}
            }
            let before = self.at;
            entry(self);
            if self.at == before {
                self.advance();
            }
            self.comma();
        }
    }

    fn comma(&mut self) {
        let (token, _) = self.current();
        match token {
            Token::Mark(',') => {
                self.advance();
            }
            Token::Mark(')' | ']' | '}') | Token::End => {}
            _ if self.tokens[self.at.saturating_sub(1)].0 == Token::Mark(',') => {}
            _ => {
                let span = self.tokens[self.at.saturating_sub(1)].1;
                self.report(code::COMMA, span.behind(), "a comma is missing", "write `,` here");
                if matches!(token, Token::Stray(_)) {
                    self.skip();
                }
            }
        }
    }

    fn list(&mut self) -> Value {
        let (_, open) = self.advance();
        let mut items = Vec::new();
        let close = self.entries(open, ']', |parser| items.push(parser.value()));
        Value::new(open.to(close), Kind::List(items))
    }

    fn map(&mut self) -> Value {
        let (_, open) = self.advance();
        if let (Token::Word(_), true) = (self.current().0, self.next_is(1, ':')) {
            let message = "records use ( ), maps use { }";
            self.report(code::BRACES, open, message, "write ( ) around fields with names");
            return self.fields(None, open, '}');
        }
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let close = self.entries(open, '}', |parser| {
            let key = parser.value();
            parser.colon();
            let value = parser.value();
            let twice = entries.iter().find(|(k, _)| k.kind == key.kind).map(|(k, _)| k.span);
            match twice {
                Some(first) => parser.twice(&key.described(), key.span, first),
                None => entries.push((key, value)),
            }
        });
        Value::new(open.to(close), Kind::Map(entries))
    }

    fn record(&mut self, name: Option<Word>) -> Value {
        let (_, open) = self.advance();
        let is_named = matches!(self.current().0, Token::Word(_) | Token::Text(_));
        let is_stray = matches!(
            self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0,
            Token::Mark(':') | Token::Stray('=')
        );
        if self.next_is(0, ')') || (is_named && is_stray) {
            self.fields(name, open, ')')
        } else {
            self.tuple(name, open)
        }
    }

    fn fields(&mut self, name: Option<Word>, open: Span, close: char) -> Value {
        let mut fields: Vec<Field> = Vec::new();
        let close = self.entries(open, close, |parser| {
            let Some(field) = parser.field() else { return };
            match fields.iter().find(|f| f.name.text == field.name.text) {
                Some(first) => {
                    let shown = format!("`{}`", field.name.text);
                    parser.twice(&shown, field.name.span, first.name.span);
                }
                None => fields.push(field),
            }
        });
        let start = name.as_ref().map_or(open, |n| n.span);
        Value::new(start.to(close), Kind::Record { name, fields })
    }

    fn field(&mut self) -> Option<Field> {
        let (token, span) = self.current();
        let text = match token {
            Token::Word(text) => text,
            Token::Text(text) => {
                let label = format!("write {text}");
                self.report(code::BRACES, span, "names of fields have no quotes", &label);
                text
            }
            _ => {
                let message = format!("expected `name: value`, found {}", shown(&token));
                self.report(code::SYNTAX, span, &message, "");
                self.skip();
                return None;
            }
        };
        self.advance();
        self.colon();
        Some(Field { name: Word { text, span }, value: self.value() })
    }

    fn colon(&mut self) {
        let (token, span) = self.current();
        match token {
            Token::Mark(':') => {
                self.advance();
            }
            Token::Stray('=') => {
                self.report(code::SYNTAX, span, "expected `:`, found `=`", "write `:`");
                self.advance();
            }
            _ => {
                let message = format!("expected `:`, found {}", shown(&token));
                self.report(code::SYNTAX, span, &message, "");
            }
        }
    }

    fn twice(&mut self, what: &str, span: Span, first: Span) {
        let finding = Finding::new(code::TWICE, format!("{what} stands twice"));
        self.findings.push(finding.at(span, "again").at(first, "first"));
    }

    fn tuple(&mut self, name: Option<Word>, open: Span) -> Value {
        let mut items = Vec::new();
        let close = self.entries(open, ')', |parser| items.push(parser.value()));
        let start = name.as_ref().map_or(open, |n| n.span);
        let span = start.to(close);
        match (name, items.pop()) {
            (
                Some(name),
                Some(Value { kind: Kind::Record { name: None, fields }, span: inner, .. }),
            ) if items.is_empty() && !fields.is_empty() => {
                let message = "one pair of parentheses is enough";
                let label = format!("write {}(..)", name.text);
                self.report(code::PARENTHESES, inner, message, &label);
                Value::new(span, Kind::Record { name: Some(name), fields })
            }
            (name, last) => {
                items.extend(last);
                Value::new(span, Kind::Tuple { name, items })
            }
        }
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Mark(c) | Token::Stray(c) => format!("`{c}`"),
        Token::Word(text) => format!("`{text}`"),
        Token::Text(text) => format!("the string \"{text}\""),
        Token::Character(c) => format!("the character '{c}'"),
        Token::Integer(value) => value.to_string(),
        Token::Float(value) => format!("{value:?}"),
        Token::End => "the end of the file".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Origin, Sources};

    fn read(text: &str) -> (Value, Vec<&'static str>) {
        let source = Sources::default().add(Origin::Argument(String::new()), text);
        let mut findings = Vec::new();
        let value = parse(text, source, &mut findings);
        (value, findings.iter().map(|f| f.code).collect())
    }

    #[test]
    fn every_form_of_value_is_read() {
        let text = r#"Job(a: 1, b: [1.5, "x"], c: {"k": (1, 2)}, d: Bare, e: Node("n"), f: (),)"#;
        let (value, codes) = read(text);
        assert_eq!(codes, [""; 0]);
        assert_eq!(value.at("a").unwrap().kind, Kind::Integer(1));
        assert_eq!(value.at("b.1").unwrap().text(), Some("x"));
        assert_eq!(value.at("c.k.1").unwrap().kind, Kind::Integer(2));
        assert_eq!(value.at("d").unwrap().name().unwrap().text, "Bare");
        assert_eq!(value.at("e").unwrap().wrapped("Node").unwrap().0, "n");
    }

    #[test]
    fn each_mistake_is_reported_and_the_rest_is_read() {
        for (text, codes) in [
            ("(a: 1 b: 2)", vec!["S002"]),
            ("{a: 1, b: 2}", vec!["S005"]),
            ("(\"a\": 1, b: 2)", vec!["S005"]),
            ("(a = 1, b: 2)", vec!["S001"]),
            ("(a: , b: 2)", vec!["S001"]),
            ("(a: 1, a: 3, b: 2)", vec!["S008"]),
            ("(a: 15.5T, # note\n b: 2)", vec!["S003", "S004"]),
            ("(a: [1, 2}, 3], b: 2)", vec!["S006"]),
            ("(b: 2, a: [1, (2])", vec!["S006"]),
            ("(a: [1, 2, b: 2)", vec!["S006"]),
            ("(a: X((c: 1)), b: 2)", vec!["S007"]),
            ("(a: 1, b: 2", vec!["S006"]),
            ("(a: 1,, b: 2)", vec!["S001"]),
            ("(a: 1, b: 2) (c: 3)", vec!["S001"]),
        ] {
            let (value, mut found) = read(text);
            found.sort_unstable();
            assert_eq!(found, codes, "{text}");
            assert_eq!(value.at("b").map(|b| &b.kind), Some(&Kind::Integer(2)), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_a_crash() {
        let (_, codes) = read(&"[".repeat(100_000));
        assert!(codes.contains(&"S001"));
    }
}
