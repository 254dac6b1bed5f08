//! `schedule`: bare orders, without a job: printed, checked, simulated.

use std::path::Path;

use graphs::{
    PlanError,
    bare::Bare,
    check::{fewest_credits, hang},
    csv,
    schedule::{Hybrid, Interleaved, Pipeline, Schedule},
    simulate::{Costs, Timing, simulate},
};
use serde_json::json;

use crate::{
    de::{self, suggestion},
    exit::Failure,
    parse::parse,
    report::{Report, SCHEMA},
    source::{Origin, Sources},
};

/// Chunks times microbatches of the longest step that is printed.
const STEP_LIMIT: usize = 1 << 18;

/// Mistakes of a file that are printed; the rest is counted.
const SHOWN: usize = 20;

/// The orders are not lawful, or hang.
fn invalid(text: String) -> Failure {
    Failure { code: 3, text }
}

/// Parameters of schedules as options of the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Forward passes of the warm-up beyond the least.
    pub extra_warmup: Option<usize>,
    /// Microbatches of one chunk before the next chunk's turn.
    pub group: Option<usize>,
    /// Whether weight gradients are split off.
    pub split_backward: bool,
    /// Whether forward and backward passes are pairs.
    pub paired: bool,
}

impl Options {
    /// The schedule with these parameters.
    ///
    /// # Errors
    ///
    /// If it does not have them.
    pub fn applied(self, schedule: Schedule) -> Result<Schedule, Failure> {
        let Options { extra_warmup, group, split_backward, paired } = self;
        let others = extra_warmup.is_some() || split_backward || paired;
        match schedule {
            Schedule::Interleaved1F1B(rule) => Ok(Schedule::Interleaved1F1B(Interleaved {
                extra_warmup: extra_warmup.unwrap_or(rule.extra_warmup),
                group: group.or(rule.group),
                split_backward: split_backward || rule.split_backward,
                paired: paired || rule.paired,
            })),
            Schedule::Hybrid(rule) if !others => {
                Ok(Schedule::Hybrid(Hybrid { group: group.or(rule.group), ..rule }))
            }
            _ if !others && group.is_none() => Ok(schedule),
            _ => {
                let name = schedule.name();
                let text = "--extra-warmup, --split-backward and --paired are of Interleaved1F1B, \
                            --group is of Interleaved1F1B and Hybrid";
                Err(Failure::usage(format!("{name} has no such parameter: {text}")))
            }
        }
    }
}

/// The schedule that a text names, as jobs write it; without parameters, with the default ones.
///
/// # Errors
///
/// If none is called so, or its parameters cannot be read.
pub fn named(text: &str) -> Result<Schedule, Failure> {
    let name = text.split('(').next().unwrap_or_default().trim();
    let found = Schedule::ALL.iter().find(|schedule| schedule.name() == name).cloned();
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = Schedule::ALL.iter().map(Schedule::name).collect();
        let all = names.join(", ");
        let near = suggestion(name, names).map_or(String::new(), |n| format!("did you mean {n}? "));
        Failure::usage(format!("no schedule is called `{name}`; {near}there are {all}"))
    })?;
    if name == text.trim() { Ok(found) } else { parsed(text) }
}

fn parsed(text: &str) -> Result<Schedule, Failure> {
    let (mut sources, mut findings) = (Sources::default(), Vec::new());
    let source = sources.add(Origin::Argument(text.into()), text);
    let value = parse(text, source, &mut findings);
    let (schedule, _) = de::read::<Schedule>(&value, &mut findings);
    match schedule {
        Some(schedule) if findings.is_empty() => Ok(schedule),
        _ => Err(Failure::usage(Report::new(findings, sources).to_string())),
    }
}

/// The orders of a schedule in PyTorch's dialect, a line for each rank, with messages if asked.
///
/// # Errors
///
/// If the schedule does not know the pipeline, with what would do instead.
pub fn print(schedule: &Schedule, pipeline: Pipeline, comms: bool) -> Result<String, Failure> {
    let Pipeline { stages, virtual_stages, microbatches } = pipeline;
    let cells = stages.saturating_mul(virtual_stages).saturating_mul(microbatches);
    if !(1..=STEP_LIMIT).contains(&cells) {
        let text = format!("pp * vpp * microbatches is {cells}; expected 1 to {STEP_LIMIT}");
        return Err(Failure::usage(text));
    }
    schedule.fits(pipeline).map_err(|unfit| {
        let error = PlanError::unfit(schedule, pipeline, unfit);
        let help = error.help().map_or(String::new(), |help| format!("; {help}"));
        invalid(format!("{} {error}{help}", error.code()))
    })?;
    let mut bare = Bare::of(schedule, pipeline).map_err(|errors| told("the schedule", &errors))?;
    if comms {
        bare = bare.with_messages().map_err(|hang| invalid(hang.to_string()))?;
    }
    Ok(csv::write(&bare))
}

/// Puts orders where they are asked for; returns what is to be printed.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write(orders: &str, to: &Path, as_json: bool) -> Result<String, Failure> {
    if to != Path::new("-") {
        let failed = |error| Failure::environment(format!("{}: {error}", to.display()));
        std::fs::write(to, orders).map_err(failed)?;
        return Ok(String::new());
    }
    Ok(if as_json {
        format!("{}\n", json!({ "schema": SCHEMA, "text": orders }))
    } else {
        orders.to_string()
    })
}

/// All that is wrong with a file, a line each.
fn told<E: std::fmt::Display>(name: &str, errors: &[E]) -> Failure {
    let mut lines: Vec<String> = errors.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more) = errors.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        lines.push(format!("and {more} more"));
    }
    invalid(format!("{name}: no lawful orders\n  {}", lines.join("\n  ")))
}

/// The lawful orders of a file.
///
/// # Errors
///
/// If it cannot be read, or all its mistakes with their cells.
pub fn read(path: &Path) -> Result<Bare, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::environment(format!("{name}: {error}")))?;
    let rows = csv::read(&text).map_err(|errors| told(&name, &errors))?;
    Bare::new(rows).map_err(|errors| told(&name, &errors))
}

/// Says that orders are lawful and run with so many credits a channel; left out: with how many.
///
/// # Errors
///
/// Who waits for whom, if they hang.
pub fn check(bare: &Bare, credits: Option<usize>, as_json: bool) -> Result<String, Failure> {
    let credits = match credits {
        Some(credits) => hang(bare, credits).map(|()| credits),
        None => fewest_credits(bare),
    };
    let credits = credits.map_err(|hang| invalid(hang.to_string()))?;
    let (ranks, chunks) = (bare.rows().len(), bare.places().len());
    let microbatches = bare.microbatches();
    Ok(if as_json {
        let answer = json!({
            "schema": SCHEMA, "ranks": ranks, "chunks": chunks, "places": bare.places(),
            "microbatches": microbatches, "credits": credits, "errors": [],
        });
        format!("{answer}\n")
    } else {
        format!(
            "lawful: {microbatches} microbatches through {chunks} chunks on {ranks} ranks; \
             they run with credits: {credits}\n"
        )
    })
}

/// Reads prices such as `F=1,I=1,W=1,comm=0,pair=2.5`; what is left out costs just that, and a
/// pair as much as its parts.
///
/// # Errors
///
/// If a part is no price.
pub fn costs(text: &str) -> Result<Costs, Failure> {
    let mut costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || {
            let text = format!(
                "`{part}` is no price; write F=, I=, W=, comm=, handling= or pair= and a number >= 0"
            );
            Failure::usage(text)
        };
        let (name, price) = part.split_once('=').ok_or_else(wrong)?;
        let price: f64 = price.trim().parse().map_err(|_| wrong())?;
        if !(price.is_finite() && price >= 0.0) {
            return Err(wrong());
        }
        match name.trim() {
            "F" => costs.forward = price,
            "I" => costs.input = price,
            "W" => costs.weight = price,
            "comm" => costs.comm = price,
            "handling" => costs.handling = price,
            "pair" => costs.pair = Some(price),
            _ => return Err(wrong()),
        }
    }
    Ok(costs)
}

/// Simulates one step and prints its times, in the unit of the prices.
///
/// # Errors
///
/// If the orders hang.
pub fn time(bare: &Bare, costs: &Costs, as_json: bool) -> Result<String, Failure> {
    let timing = simulate(bare, costs).map_err(|hang| invalid(hang.to_string()))?;
    let Timing { makespan, span, idle, peak } = timing;
    if as_json {
        let answer = json!({
            "schema": SCHEMA, "makespan": makespan, "span": span, "idle": idle, "peak": peak,
        });
        return Ok(format!("{answer}\n"));
    }
    let mut text = format!("makespan {makespan}\nrank       span       idle  peak\n");
    for (rank, ((span, idle), peak)) in span.iter().zip(&idle).zip(&peak).enumerate() {
        text += &format!("{rank:>4} {span:>10} {idle:>10} {peak:>5}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> Bare {
        Bare::new(csv::read(text).unwrap()).unwrap()
    }

    fn pipeline(stages: usize, virtual_stages: usize, microbatches: usize) -> Pipeline {
        Pipeline { stages, virtual_stages, microbatches }
    }

    #[test]
    fn every_schedule_is_found_by_its_name_and_others_are_suggested() {
        for schedule in Schedule::ALL {
            assert_eq!(named(schedule.name()).unwrap(), *schedule);
        }
        let failure = named("ZbH3").unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.text.contains("did you mean ZbH"), "{failure}");
    }

    #[test]
    fn parameters_are_read_as_jobs_write_them_or_as_options() {
        let options = Options { extra_warmup: Some(1), paired: true, ..Options::default() };
        let applied = |name| options.applied(named(name).unwrap());
        let rule = Interleaved { extra_warmup: 1, paired: true, ..Interleaved::PLAIN };
        assert_eq!(applied("Interleaved1F1B").unwrap(), Schedule::Interleaved1F1B(rule));
        let written = "Interleaved1F1B(extra_warmup: 1, paired: true)";
        assert_eq!(named(written).unwrap(), Schedule::Interleaved1F1B(rule));
        assert!(applied("ZbV").unwrap_err().text.starts_with("ZbV has no such parameter: "));
        let group = Options { group: Some(6), ..Options::default() };
        let hybrid = group.applied(named("Hybrid(split_pairs: true)").unwrap()).unwrap();
        let expected = Hybrid { split_pairs: true, group: Some(6) };
        assert_eq!(hybrid, Schedule::Hybrid(expected));
        let automatic = named("Automatic(forward: 20, limit: 2)").unwrap();
        let Schedule::Automatic(rule) = automatic else { panic!("{automatic:?}") };
        assert_eq!((rule.forward, rule.input, rule.limit.get()), (20, 1, 2));
        let failure = named("Automatic(limit: 0)").unwrap_err();
        assert!(failure.text.contains("expected a nonzero u32"), "{failure}");
        let failure = named("Interleaved1F1B(extra: 1)").unwrap_err();
        assert!(failure.text.contains("unknown field `extra`"), "{failure}");
        assert_eq!(failure.code, 2);
    }

    #[test]
    fn orders_are_printed_for_what_fits_and_else_the_reason() {
        let text = print(&Schedule::ZbH1, pipeline(2, 1, 2), false).unwrap();
        assert_eq!(text, "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n");
        let said = |schedule, pipeline| print(&schedule, pipeline, false).unwrap_err().to_string();
        assert_eq!(
            said(Schedule::ZbV, pipeline(2, 1, 2)),
            "P102 ZbV needs vpp = 2, got vpp = 1; write vpp: 2"
        );
        let text = print(&Schedule::ZbH1, pipeline(2, 1, 1), true).unwrap();
        assert_eq!(text, "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n");
        assert!(said(Schedule::GPipe, pipeline(0, 1, 2)).contains("is 0; expected 1 to"));
        assert!(said(Schedule::GPipe, pipeline(1, 1, usize::MAX)).contains("expected 1 to"));
    }

    #[test]
    fn orders_that_hang_are_refused_and_others_say_with_how_many_credits_they_run() {
        let text = "0F0,0F1,3F1,3F0\n1F0,2F0,1F1,2F1";
        let told = check(&bare(text), None, false).unwrap();
        assert_eq!(
            told,
            "lawful: 2 microbatches through 4 chunks on 2 ranks; they run with credits: 2\n"
        );
        let failure = check(&bare(text), Some(1), false).unwrap_err();
        assert_eq!(failure.code, 3);
        assert!(failure.text.starts_with("the orders would hang:\nrank 0, cell 2"), "{failure}");
    }

    #[test]
    fn many_mistakes_are_cut_short() {
        let errors: Vec<usize> = (0..30).collect();
        let failure = told("orders.csv", &errors);
        assert!(failure.text.starts_with("orders.csv: no lawful orders\n  0\n"), "{failure}");
        assert!(failure.text.ends_with("\n  19\n  and 10 more"), "{failure}");
    }

    #[test]
    fn prices_are_read_and_times_printed() {
        let costs = costs("F=2, comm=0.5").unwrap();
        assert_eq!(
            costs,
            Costs { forward: 2.0, input: 1.0, weight: 1.0, comm: 0.5, handling: 0.0, pair: None }
        );
        assert_eq!(super::costs("pair=2.25").unwrap().pair, Some(2.25));
        let orders = bare("0F0,0B0\n1F0,1B0");
        let text = time(&orders, &costs, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "schema": SCHEMA, "makespan": 9.0, "span": [9.0, 4.0], "idle": [5.0, 5.0],
            "peak": [1, 1],
        });
        assert_eq!(value, expected);
        let text = time(&orders, &costs, false).unwrap();
        assert!(text.starts_with("makespan 9\nrank "), "{text}");
        for wrong in ["F", "F=x", "F=-1", "F=NaN", "G=1"] {
            assert!(super::costs(wrong).is_err(), "{wrong}");
        }
    }
}
