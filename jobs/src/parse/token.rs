//! Cuts the text of a job file into tokens, repairing what can be guessed.

use crate::{
    code,
    report::Finding,
    source::{SourceId, Span},
};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// One of `( ) [ ] { } , :`.
    Mark(char),
    /// A name.
    Word(String),
    /// A string, without quotes and escapes.
    Text(String),
    /// A character.
    Character(char),
    /// A whole number.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// A character that RON does not use; reported by whoever meets it.
    Stray(char),
    /// The end of the text.
    End,
}

/// Cuts a text; mistakes go to `findings`, and the tokens are what was probably meant.
pub fn tokens(text: &str, source: SourceId, findings: &mut Vec<Finding>) -> Vec<(Token, Span)> {
    let mut lexer = Lexer { text, at: 0, source, findings };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let Some(first) = lexer.peek() else {
            tokens.push((Token::End, lexer.span(start)));
            return tokens;
        };
        let token = lexer.token(first);
        tokens.push((token, lexer.span(start)));
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    source: SourceId,
    findings: &'t mut Vec<Finding>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn span(&self, start: usize) -> Span {
        Span { source: self.source, start: start as u32, end: self.at as u32 }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn report(&mut self, start: usize, code: &'static str, message: &str, label: &str) {
        let place = self.span(start);
        self.findings.push(Finding::new(code, message).at(place, label));
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            let start = self.at;
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                self.skip_block();
            } else if self.rest().starts_with("#![") {
                self.take_while(|c| c != ']' && c != '\n');
                self.at += usize::from(self.peek() == Some(']'));
            } else if self.rest().starts_with('#') {
                self.take_while(|c| c != '\n');
                self.report(
                    start,
                    code::COMMENT,
                    "`#` starts no comment",
                    "comments start with //",
                );
            } else {
                return;
            }
        }
    }

    fn skip_block(&mut self) {
        let start = self.at;
        let mut depth = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                (depth, self.at) = (depth + 1, self.at + 2);
            } else if rest.starts_with("*/") {
                (depth, self.at) = (depth - 1, self.at + 2);
            } else if let Some(c) = self.peek() {
                self.at += c.len_utf8();
            } else {
                let message = "this comment does not end";
                self.report(start, code::UNCLOSED, message, "write */ behind it");
                return;
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn token(&mut self, first: char) -> Token {
        match first {
            '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' => {
                self.at += 1;
                Token::Mark(first)
            }
            '"' => self.string(),
            '\'' => self.character(),
            'r' if self.rest()[1..].starts_with(['"', '#']) => self.raw_string(),
            '0'..='9' | '.' | '-' | '+' => self.number(),
            _ if first.is_alphabetic() || first == '_' => {
                Token::Word(self.take_while(|c| c.is_alphanumeric() || c == '_').into())
            }
            _ => {
                self.at += first.len_utf8();
                Token::Stray(first)
            }
        }
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let sign = self.take_while(|c| c == '-' || c == '+');
        let mut body = self.take_while(is_numeral).to_string();
        let is_exponent = |body: &str| body.ends_with(['e', 'E']) && !body.starts_with("0x");
        if is_exponent(&body) && self.rest().starts_with(['-', '+']) {
            self.at += 1;
            self.take_while(is_numeral);
        }
        body = self.text[start..self.at].replace('_', "");
        if body.is_empty() || body == sign || sign.len() > 1 {
            return Token::Stray(self.text[start..].chars().next().unwrap_or('-'));
        }
        if let Some(number) = parse_number(&body) {
            return number;
        }
        if self.peek() == Some('%') {
            self.at += 1;
        }
        let whole = &self.text[start..self.at];
        let message = format!("`{whole}` is no number");
        self.report(
            start,
            code::UNIT_QUOTES,
            &message,
            &format!("units go in quotes: \"{whole}\""),
        );
        Token::Text(whole.into())
    }

    fn character(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('\\') {
            let mut text = String::new();
            self.escape(&mut text);
            if let (Some('\''), Some(c)) = (self.peek(), text.chars().next()) {
                self.at += 1;
                return Token::Character(c);
            }
        }
        let body = self.take_while(|c| c != '\'' && c != '\n');
        if self.peek() != Some('\'') {
            self.report(start, code::STRING, "this quote does not end", "strings use \"..\"");
            return Token::Text(body.into());
        }
        self.at += 1;
        let mut letters = body.chars();
        match (letters.next(), letters.next()) {
            (Some(c), None) => Token::Character(c),
            _ => {
                let message = "strings use double quotes";
                self.report(start, code::STRING, message, &format!("write \"{body}\""));
                Token::Text(body.into())
            }
        }
    }

    fn raw_string(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        let hashes = self.take_while(|c| c == '#').len();
        if self.peek() != Some('"') {
            return Token::Word(self.take_while(|c| c.is_alphanumeric() || c == '_').into());
        }
        self.at += 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let rest = self.rest();
        let Some(length) = rest.find(&close) else {
            self.at = self.text.len();
            self.report(start, code::UNCLOSED, "this string does not end", "");
            return Token::Text(rest.into());
        };
        self.at += length + close.len();
        Token::Text(rest[..length].into())
    }

    fn string(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != '"' && c != '\\'));
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Token::Text(text);
                }
                Some(_) => self.escape(&mut text),
                None => return self.open_string(start),
            }
        }
    }

    /// Ends a string without closing quote at the end of its line, so that the rest is read.
    fn open_string(&mut self, start: usize) -> Token {
        self.at = start + 1;
        let line = self.take_while(|c| c != '\n');
        let body = line.trim_end().trim_end_matches([',', ')']);
        self.at = start + 1 + body.len();
        self.report(start, code::UNCLOSED, "this string does not end", "a `\"` is missing");
        Token::Text(body.into())
    }

    fn escape(&mut self, text: &mut String) {
        let start = self.at;
        self.at += 1;
        let Some(letter) = self.peek() else { return };
        self.at += letter.len_utf8();
        match letter {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            '0' => text.push('\0'),
            '\\' | '"' | '\'' => text.push(letter),
            'u' if self.peek() == Some('{') => match self.unicode() {
                Some(c) => text.push(c),
                None => self.report(start, code::STRING, "this is no character", "\\u{1F980}"),
            },
            _ => {
                let message = format!("strings know no `\\{letter}`");
                self.report(start, code::STRING, &message, "write \\\\ for a backslash");
            }
        }
    }

    fn unicode(&mut self) -> Option<char> {
        self.at += 1;
        let digits = self.take_while(|c| c.is_ascii_hexdigit());
        if self.peek() != Some('}') {
            return None;
        }
        self.at += 1;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
    }
}

fn is_numeral(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn parse_number(body: &str) -> Option<Token> {
    let digits = body.trim_start_matches(['-', '+']);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            let value = i128::from_str_radix(digits, radix).ok()?;
            return Some(Token::Integer(if body.starts_with('-') { -value } else { value }));
        }
    }
    if let Ok(value) = body.parse() {
        return Some(Token::Integer(value));
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    body.parse().ok().filter(|value: &f64| value.is_finite()).map(Token::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Origin, Sources};

    fn check(text: &str, expected: &[Token], codes: &[&str]) {
        let source = Sources::default().add(Origin::Argument(String::new()), text);
        let mut findings = Vec::new();
        let found = tokens(text, source, &mut findings);
        let found: Vec<Token> = found.into_iter().map(|(token, _)| token).collect();
        assert_eq!(&found[..found.len() - 1], expected, "{text}");
        assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), codes, "{text}");
    }

    #[test]
    fn numbers_have_all_forms_that_ron_has() {
        check("1 -2 0x10", &[Token::Integer(1), Token::Integer(-2), Token::Integer(16)], &[]);
        check("1_000 2e-4 .5", &[Token::Integer(1000), Token::Float(2e-4), Token::Float(0.5)], &[]);
    }

    #[test]
    fn a_unit_outside_quotes_is_read_as_if_it_had_them() {
        check("15.5T", &[Token::Text("15.5T".into())], &["S004"]);
        check("4Ki", &[Token::Text("4Ki".into())], &["S004"]);
    }

    #[test]
    fn strings_and_comments_are_those_of_rust() {
        check(r#""a\n\u{e9}" 'b'"#, &[Token::Text("a\né".into()), Token::Character('b')], &[]);
        check(
            "r#\"a\"b\"# r\"c\\\"",
            &[Token::Text("a\"b".into()), Token::Text("c\\".into())],
            &[],
        );
        check(r"'\n' '\'' '\u{301}'", &['\n', '\'', '\u{301}'].map(Token::Character), &[]);
        check("/* a /* b */ */ 1 // c", &[Token::Integer(1)], &[]);
        check("# note\n1", &[Token::Integer(1)], &["S003"]);
        check("'abc'", &[Token::Text("abc".into())], &["S009"]);
        check("#![enable(implicit_some)]\n1", &[Token::Integer(1)], &[]);
    }

    #[test]
    fn an_open_string_ends_with_its_line() {
        let tokens = [Token::Text("ab".into()), Token::Mark(','), Token::Word("x".into())];
        check("\"ab,\nx", &tokens, &["S006"]);
    }
}
