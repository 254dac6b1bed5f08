//! Orders as files, in PyTorch's dialect: a line for each rank, cells between commas.
//!
//! `2F0`, `2I0`, `2W0`, `2B0` are work of chunk 2 for microbatch 0; an empty cell is an idle step,
//! which says nothing of order; `(0F7;7B3)OVERLAP_F_B` is a forward and a backward pass as one.
//! With messages, `0SEND_F3` sends the output of chunk 0, `1RECV_F3` receives it for chunk 1, and
//! `SEND_B` and `RECV_B` do so with gradients. What PyTorch writes of sharded parameters and of
//! waiting for sends says nothing of order and is passed over, and so is a line that begins with
//! `#`, which is ours: for remarks.

use crate::{
    action::{Action, Work},
    bare::{Bare, Cell, Step, Token},
};

/// A cell that says nothing known; lines and cells are counted from 0.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "stage {stage}, cell {cell}: `{text}` is no action; write chunk, one of F I W B, microbatch: \
     2F0, or (0F7;7B3)OVERLAP_F_B, 0SEND_F3, 1RECV_F3, 1SEND_B3, 0RECV_B3"
)]
pub struct CellError {
    /// Line, empty ones not counted.
    pub stage: usize,
    /// Column.
    pub cell: usize,
    /// What stands there.
    pub text: String,
}

/// Writes orders, without idle cells.
pub fn write(bare: &Bare) -> String {
    let row = |row: &Vec<Cell>| {
        let cells: Vec<String> = row.iter().map(|cell| cell.step.to_string()).collect();
        cells.join(",") + "\n"
    };
    bare.rows().iter().map(row).collect()
}

/// Reads the cells of a file; [`crate::bare::Bare`] checks what they say.
///
/// # Errors
///
/// All the cells that cannot be read.
pub fn read(text: &str) -> Result<Vec<Vec<Cell>>, Vec<CellError>> {
    let mut errors = Vec::new();
    let says = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let lines = text.lines().filter(says);
    let mut rows = Vec::new();
    for (stage, line) in lines.enumerate() {
        let mut row = Vec::new();
        for (column, text) in line.split(',').map(str::trim).enumerate() {
            match step(text) {
                Some(step) => row.extend(step.map(|step| Cell { column, step })),
                None => errors.push(CellError { stage, cell: column, text: text.to_string() }),
            }
        }
        rows.push(row);
    }
    if errors.is_empty() { Ok(rows) } else { Err(errors) }
}

/// The step of a cell, none inside if there is nothing to do; none if it cannot be read.
fn step(text: &str) -> Option<Option<Step>> {
    if text.is_empty() {
        return Some(None);
    }
    if let Some(pair) = text.strip_prefix('(').and_then(|t| t.strip_suffix(")OVERLAP_F_B")) {
        let (forward, backward) = pair.split_once(';')?;
        let pair: (Action, Action) = (forward.parse().ok()?, backward.parse().ok()?);
        let fits = pair.0.work == Work::Forward
            && matches!(pair.1.work, Work::Backward | Work::BackwardInput);
        return fits.then_some(Some(Step::Pair(pair.0, pair.1)));
    }
    if let Ok(action) = text.parse() {
        return Some(Some(Step::Work(action)));
    }
    message(text)
}

/// A cell between computations.
fn message(text: &str) -> Option<Option<Step>> {
    let word = text.trim_matches(|c: char| c.is_ascii_digit());
    let chunk: usize = text[..text.find(word)?].parse().ok()?;
    if matches!(word, "UNSHARD" | "RESHARD" | "REDUCE_GRAD" | "WAIT_REDUCE_GRAD") {
        return Some(None);
    }
    let microbatch = text.rsplit(word).next()?.parse().ok()?;
    let token = |from, to| Token { from, to, microbatch };
    Some(Some(match word {
        "SEND_F" => Step::Send(token(chunk, chunk.checked_add(1)?)),
        "RECV_F" => Step::Receive(token(chunk.checked_sub(1)?, chunk)),
        "SEND_B" => Step::Send(token(chunk, chunk.checked_sub(1)?)),
        "RECV_B" => Step::Receive(token(chunk.checked_add(1)?, chunk)),
        "WAIT_SEND_F" | "WAIT_SEND_B" => return Some(None),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Pipeline, Schedule};

    #[test]
    fn every_kind_of_cell_reads_as_what_it_prints() {
        let text = "0F0,2I1,2W1,13B4,(0F7;7B3)OVERLAP_F_B,0SEND_F3,1RECV_F3,1SEND_B3,0RECV_B3";
        let rows = read(text).unwrap();
        let cells: Vec<String> = rows[0].iter().map(|cell| cell.step.to_string()).collect();
        assert_eq!(cells.join(","), text);
    }

    #[test]
    fn what_is_written_reads_back() {
        let pipeline = Pipeline { stages: 2, virtual_stages: 2, microbatches: 4 };
        let bare = Bare::of(&Schedule::DualPipeV, pipeline).unwrap();
        let text = write(&bare);
        assert!(text.starts_with("0F0,0F1,0F2,3F0,3I0,3W0,3F1,(0F3;3B1)OVERLAP_F_B,"), "{text}");
        assert_eq!(Bare::new(read(&text).unwrap()).unwrap(), bare);
    }

    #[test]
    fn idle_cells_and_those_of_other_engines_only_count() {
        let rows =
            read("# two ranks\n0UNSHARD,, 0F0 ,0WAIT_SEND_F0,0RESHARD\n\n,1F0,0REDUCE_GRAD\n")
                .unwrap();
        let columns = |row: &Vec<Cell>| row.iter().map(|cell| cell.column).collect::<Vec<_>>();
        assert_eq!(rows.iter().map(columns).collect::<Vec<_>>(), [[2], [1]]);
    }

    #[test]
    fn all_cells_that_cannot_be_read_are_named() {
        let errors =
            read("0F0,0X0,F\n0RECV_F0,(0B0;0F0)OVERLAP_F_B,2é,0SEND_B1,0SEND_F").unwrap_err();
        let cells: Vec<_> = errors.iter().map(|e| (e.stage, e.cell, e.text.as_str())).collect();
        let expected = [
            (0, 1, "0X0"),
            (0, 2, "F"),
            (1, 0, "0RECV_F0"),
            (1, 1, "(0B0;0F0)OVERLAP_F_B"),
            (1, 2, "2é"),
            (1, 3, "0SEND_B1"),
            (1, 4, "0SEND_F"),
        ];
        assert_eq!(cells, expected);
        assert!(errors[0].to_string().starts_with("stage 0, cell 1: `0X0` is no action; write"));
    }
}
