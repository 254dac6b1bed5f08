//! Orders that somebody wrote: rows in PyTorch's dialect, as a file has them.
//!
//! Sends and receives among them are checked; plans put in their own.

use serde::{Deserialize, Serialize};

use crate::{
    bare::{Bare, Cell, Step},
    check::hang,
    csv,
    schedule::{Pipeline, Unfit},
};

/// Lawful orders, read from text; a job writes them as a list of rows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Written(Bare);

impl Written {
    /// Reads rows of cells; see [`csv::read`] for the dialect.
    ///
    /// # Errors
    ///
    /// All mistakes of all cells, with row and column.
    pub fn read(text: &str) -> Result<Self, Vec<String>> {
        let rows = csv::read(text).map_err(lines)?;
        Bare::new(rows).map(Written).map_err(lines)
    }

    /// The orders, with all that the text has beside them.
    pub fn bare(&self) -> &Bare {
        &self.0
    }

    /// The pipeline that the orders are for; chunks of the stage that has most of them.
    pub fn pipeline(&self) -> Pipeline {
        let stages = self.0.rows().len();
        let chunks = |stage| self.0.places().iter().filter(|&&place| place == stage).count();
        let virtual_stages = (0..stages).map(chunks).max().unwrap_or(0);
        Pipeline { stages, virtual_stages, microbatches: self.0.microbatches() }
    }

    /// Whether the orders are for this pipeline, with as many chunks on each stage, and run.
    pub(super) fn fits(&self, pipeline: Pipeline) -> Result<(), Unfit> {
        let expected = self.pipeline();
        let even = self.0.places().len() == expected.stages * expected.virtual_stages;
        if expected != pipeline || !even {
            return Err(Unfit::Shape { expected, even });
        }
        hang(&self.0, pipeline.microbatches).map_err(Unfit::Hang)
    }

    /// The cells that compute.
    pub(super) fn steps(&self) -> Vec<Vec<Step>> {
        let computes = |cell: &&Cell| !matches!(cell.step, Step::Send(_) | Step::Receive(_));
        let row = |row: &Vec<Cell>| row.iter().filter(computes).map(|cell| cell.step).collect();
        self.0.rows().iter().map(row).collect()
    }
}

fn lines<E: ToString>(errors: Vec<E>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

impl TryFrom<Vec<String>> for Written {
    type Error = String;

    fn try_from(rows: Vec<String>) -> Result<Self, String> {
        Written::read(&rows.join("\n")).map_err(|lines| lines.join("; "))
    }
}

impl From<Written> for Vec<String> {
    fn from(written: Written) -> Self {
        csv::write(&written.0).lines().map(str::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(stages: usize, virtual_stages: usize, microbatches: usize) -> Pipeline {
        Pipeline { stages, virtual_stages, microbatches }
    }

    #[test]
    fn rows_read_back_and_only_what_computes_is_a_step() {
        let text = "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n";
        let written = Written::read(text).unwrap();
        let rows = Vec::from(written.clone());
        assert_eq!(rows.join("\n") + "\n", text);
        assert_eq!(Written::try_from(rows), Ok(written.clone()));
        let cells: Vec<String> = written.steps()[0].iter().map(ToString::to_string).collect();
        assert_eq!(cells, ["0F0", "0B0"]);
    }

    #[test]
    fn orders_for_another_pipeline_say_for_which() {
        let fits = |text: &str, asked| Written::read(text).unwrap().fits(asked);
        let text = "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0";
        assert_eq!(fits(text, pipeline(2, 2, 1)), Ok(()));
        let expected = pipeline(2, 2, 1);
        let refused = Err(Unfit::Shape { expected, even: true });
        assert_eq!(fits(text, pipeline(2, 1, 1)), refused);
        assert_eq!(fits(text, pipeline(4, 2, 1)), refused);
        assert_eq!(fits(text, pipeline(2, 2, 8)), refused);
        let uneven = "0F0,1F0,1B0,0B0\n2F0,2B0";
        let refused = Err(Unfit::Shape { expected, even: false });
        assert_eq!(fits(uneven, expected), refused);
    }

    #[test]
    fn orders_that_hang_are_refused_with_the_ring() {
        let text = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n(1F0;1B0)OVERLAP_F_B,(1F1;1B1)OVERLAP_F_B";
        let Err(Unfit::Hang(hang)) = Written::read(text).unwrap().fits(pipeline(2, 1, 2)) else {
            panic!("it runs");
        };
        assert!(hang.story[0].contains("a pair starts when both can"), "{hang}");
    }
}
