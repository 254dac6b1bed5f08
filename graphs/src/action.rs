//! One cell of a schedule, and its text form `2F0`, as PyTorch prints it.

use std::{fmt, str::FromStr};

/// What a stage does for one microbatch.
///
/// The letters agree with PyTorch's; what the zero-bubble papers call B is our `I`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Work {
    /// `F`: forward.
    Forward,
    /// `I`: gradient of the input.
    BackwardInput,
    /// `W`: gradient of the weights.
    BackwardWeight,
    /// `B`: `I` and then `W`, the input's gradient being sent at the end of both.
    Backward,
}

impl Work {
    /// The letter of the text form.
    pub fn letter(self) -> char {
        match self {
            Work::Forward => 'F',
            Work::BackwardInput => 'I',
            Work::BackwardWeight => 'W',
            Work::Backward => 'B',
        }
    }
}

/// Work of one chunk for one microbatch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Action {
    /// Chunk of the model, counted along the model over all stages: `0..pp * vpp`.
    pub chunk: usize,
    /// What is done.
    pub work: Work,
    /// Microbatch it is done for.
    pub microbatch: usize,
}

impl Action {
    /// The work in its smallest parts: `B` is `I` and then `W`.
    pub fn parts(self) -> Vec<Action> {
        match self.work {
            Work::Backward => [Work::BackwardInput, Work::BackwardWeight]
                .map(|work| Action { work, ..self })
                .to_vec(),
            _ => vec![self],
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}{}", self.chunk, self.work.letter(), self.microbatch))
    }
}

/// A text that is no action.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is no action; write chunk, one of F I W B, microbatch: 2F0")]
pub struct ActionError(pub String);

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let error = || ActionError(text.to_string());
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let work = match text.as_bytes()[at] {
            b'F' => Work::Forward,
            b'I' => Work::BackwardInput,
            b'W' => Work::BackwardWeight,
            b'B' => Work::Backward,
            _ => return Err(error()),
        };
        let number = |part: &str| part.parse().map_err(|_| error());
        Ok(Action { chunk: number(&text[..at])?, work, microbatch: number(&text[at + 1..])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        for text in ["2F0", "0I13", "11W7", "3B1"] {
            assert_eq!(text.parse::<Action>().unwrap().to_string(), text);
        }
        for text in ["", "F", "2F", "F0", "2X0", "2é0", "-1F0"] {
            assert!(text.parse::<Action>().is_err(), "{text}");
        }
    }
}
