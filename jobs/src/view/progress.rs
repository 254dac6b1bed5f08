//! One line a step: rewritten in place on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};

use runtime::StepReport;

/// Prints the progress of a run to standard error.
pub struct Progress {
    last_step: Option<u64>,
    in_place: bool,
    quiet: bool,
}

impl Progress {
    /// A line per step; `last_step` is shown beside the step if the job says where it stops.
    pub fn new(last_step: Option<u64>, quiet: bool) -> Self {
        Progress { last_step, in_place: stderr().is_terminal(), quiet }
    }

    /// Shows a finished step.
    pub fn show(&self, report: &StepReport) {
        if self.quiet {
            return;
        }
        let line = line(report, self.last_step);
        if self.in_place {
            eprint!("\r\x1b[2K{line}");
            // A terminal that does not take the line loses nothing but the line.
            let _ = stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the line standing, so that what follows begins below it.
    pub fn leave(&self) {
        if self.in_place && !self.quiet {
            eprintln!();
        }
    }
}

/// The text of a step.
pub fn line(report: &StepReport, last_step: Option<u64>) -> String {
    let of = last_step.map_or_else(String::new, |last| format!("/{last}"));
    let experts = match report.load_max_over_mean {
        load if 0.0 < load => format!("  load {load:.2}x"),
        _ => String::new(),
    };
    let phase = report.phase.as_ref().map_or_else(String::new, |name| format!("{name}  "));
    format!(
        "{phase}step {}{of}  loss {:.4}  lr {:.2e}  {} tok/s  {:.2} s/step  idle {:.0} %{experts}  {}",
        report.step,
        report.loss,
        report.lr,
        grouped(report.tokens_per_second as u64),
        report.step_seconds,
        100.0 * report.bubble,
        bytes(report.memory_bytes),
    )
}

/// A whole number with its thousands set apart: `12 345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if 0 < place && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the largest unit that leaves a number above one.
pub fn bytes(number: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while 1024.0 <= value && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_fits_one_line() {
        let report = StepReport {
            step: 7,
            loss: 5.25,
            lr: 0.002,
            tokens_per_second: 12_345.6,
            step_seconds: 0.166,
            bubble: 0.125,
            memory_bytes: 300 << 20,
            load_max_over_mean: 1.5,
            ..StepReport::default()
        };
        assert_eq!(
            line(&report, Some(300)),
            "step 7/300  loss 5.2500  lr 2.00e-3  12 345 tok/s  0.17 s/step  idle 12 %  \
             load 1.50x  300.0 MiB"
        );
        let report = StepReport { phase: Some("anneal".into()), ..report };
        assert!(line(&report, Some(300)).starts_with("anneal  step 7/300  loss 5.2500"));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
    }
}
