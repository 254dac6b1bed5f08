//! `simulate`: how long a step of a job takes, and what it waits for.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use graphs::{
    overlap::Overlap,
    price::Prices,
    simulate::{Conditions, Link, Outcome, RankOutcome, Simulated, chain, plan as simulate_plan},
    timeline::Cause,
};
use serde_json::{Value, json};

use crate::{
    exit::Failure,
    job::Job,
    load::Loaded,
    machine, profile,
    report::SCHEMA,
    view::{
        progress::grouped,
        words::{self, cause as cause_word, time},
    },
};

/// Links of the chain that are shown.
const SHOWN: usize = 8;

/// What is asked beside the job.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// File that `troupe measure` wrote.
    pub profile: Option<PathBuf>,
    /// Slow ranks, as `rank=factor`.
    pub slow: Vec<String>,
    /// Relative standard deviation of each computation.
    pub jitter: f64,
    /// Key of the jitter.
    pub seed: u64,
}

/// Simulates one step of the job's plan and says what it comes to.
///
/// # Errors
///
/// A profile that cannot be read, a rank that does not exist.
pub fn simulate(loaded: &Loaded, asked: &Asked, as_json: bool) -> Result<String, Failure> {
    let Loaded { job, graph, plan, .. } = loaded;
    let profile = asked.profile.as_deref().map(profile::read).transpose()?;
    let prices = machine::prices(job, graph, plan, profile.as_ref());
    let conditions = conditions(asked, plan.mesh.pp)?;
    let refused = |hang: graphs::check::Deadlock| Failure { code: 3, text: hang.to_string() };
    let simulated = simulate_plan(plan, &prices, &conditions).map_err(refused)?;
    let links = chain(&simulated.timeline, &simulated.outcome.chain);
    Ok(if as_json {
        let overlap = Overlap::sum(Overlap::of_timeline(plan, &simulated.timeline));
        format!("{}\n", answer(job, &simulated.outcome, &overlap, &links))
    } else {
        page(loaded, &prices, &simulated, &links)
    })
}

fn conditions(asked: &Asked, stages: usize) -> Result<Conditions, Failure> {
    let slow = asked.slow.iter().map(|text| slow(text, stages));
    let slow: BTreeMap<usize, f64> = slow.collect::<Result<_, Failure>>()?;
    if !(asked.jitter.is_finite() && asked.jitter >= 0.0) {
        return Err(Failure::usage(format!("the jitter is {}; expected 0 or more", asked.jitter)));
    }
    Ok(Conditions { slow, jitter: asked.jitter, seed: asked.seed })
}

fn slow(text: &str, stages: usize) -> Result<(usize, f64), Failure> {
    let parsed = text.split_once('=').and_then(|(rank, factor)| {
        let (rank, factor) = (rank.trim().parse().ok()?, factor.trim().parse().ok()?);
        Some((rank, factor))
    });
    let fits =
        |(rank, factor): &(usize, f64)| *rank < stages && factor.is_finite() && *factor > 0.0;
    parsed.filter(fits).ok_or_else(|| {
        let rule = format!("write a rank from 0 to {}, `=`, and a factor above 0", stages - 1);
        Failure::usage(format!("`{text}` slows no rank; {rule}"))
    })
}

fn page(loaded: &Loaded, prices: &Prices, simulated: &Simulated, links: &[Link]) -> String {
    let Loaded { job, plan, .. } = loaded;
    let outcome = &simulated.outcome;
    let name = job.plan_name().map_or("written in place".into(), |name| format!("`{name}`"));
    let phase = loaded.phase().name.as_ref();
    let phase = phase.map_or(String::new(), |name| format!("phase `{name}`, "));
    let mut text = format!(
        "{}   {phase}plan {name}, {} ranks on {}\n\
         step        {}, of which the optimizer phase {}\n\
         speed       {} tokens/s, MFU {:.1} %\n\
         idle        {:.1} % of the programs' time\n\n",
        job.name,
        plan.mesh.ranks(),
        match prices.cores {
            Some(cores) => format!("{cores} shared cores"),
            None => machine::owned(job).into(),
        },
        time(outcome.makespan),
        time(outcome.makespan - outcome.program),
        grouped(outcome.tokens_per_second as u64),
        100.0 * outcome.mfu,
        100.0 * outcome.idle,
    );
    text += &table(outcome);
    let overlap = Overlap::sum(Overlap::of_timeline(plan, &simulated.timeline));
    words::overlap(&overlap).iter().for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    let _ = writeln!(text, "\nchain that the step waits for, {} spans", outcome.chain.len());
    for Link { rank, kind, seconds, spans } in links.iter().take(SHOWN) {
        let share = 100.0 * seconds / outcome.makespan;
        let kind = format!("{kind:?}");
        let seconds = time(*seconds);
        let _ = writeln!(
            text,
            "  rank {rank:<3} {kind:<22} {seconds:>10}  {share:>4.1} %  {spans} spans"
        );
    }
    text
}

/// A line for each rank: part of the step in which it computes, and in which it waits, by cause.
fn table(outcome: &Outcome) -> String {
    let is_seen = |cause: &Cause| outcome.ranks.iter().any(|rank| rank.idle.contains_key(cause));
    let causes: Vec<Cause> = Cause::ALL.into_iter().filter(is_seen).collect();
    let mut text = String::from("% of step    busy");
    causes.iter().for_each(|&cause| {
        let _ = write!(text, " {:>9}", cause_word(cause));
    });
    text += "   exposed communication\n";
    for (number, rank) in outcome.ranks.iter().enumerate() {
        let part = |seconds: f64| 100.0 * seconds / outcome.makespan;
        let _ = write!(text, "rank {number:<4} {:>7.1}", part(rank.busy));
        for cause in &causes {
            let idle = rank.idle.get(cause).copied().unwrap_or(0.0);
            let _ = write!(text, " {:>9.1}", part(idle));
        }
        let _ = writeln!(text, "   {:>21}", time(rank.exposed));
    }
    text
}

fn answer(job: &Job, outcome: &Outcome, overlap: &Overlap, links: &[Link]) -> Value {
    let rank = |rank: &RankOutcome| {
        let idle =
            rank.idle.iter().map(|(cause, seconds)| (cause_word(*cause).into(), json!(seconds)));
        json!({
            "span": rank.span, "busy": rank.busy, "sending": rank.sending,
            "exposed": rank.exposed, "idle": idle.collect::<serde_json::Map<_, _>>(),
        })
    };
    let link = |link: &Link| {
        json!({
            "rank": link.rank, "kind": format!("{:?}", link.kind), "seconds": link.seconds,
            "spans": link.spans,
        })
    };
    json!({
        "schema": SCHEMA,
        "job": job.name,
        "plan": job.plan_name(),
        "makespan": outcome.makespan,
        "program": outcome.program,
        "tokens_per_second": outcome.tokens_per_second,
        "mfu": outcome.mfu,
        "idle": outcome.idle,
        "overlap": overlap,
        "ranks": outcome.ranks.iter().map(rank).collect::<Vec<_>>(),
        "chain": links.iter().map(link).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, load};

    fn job(sets: &[&str]) -> Loaded {
        let sets = sets.iter().map(|set| set.to_string()).collect();
        let request = Request { job: "k2-nano".into(), sets, ..Request::default() };
        load(&request).unwrap_or_else(|report| panic!("{report}"))
    }

    fn figure(asked: &Asked, sets: &[&str], name: &str) -> f64 {
        let text = simulate(&job(sets), asked, true).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        value[name].as_f64().unwrap()
    }

    #[test]
    fn a_page_says_how_long_and_why() {
        let sets = ["cluster=Preset(\"h100x64\")"];
        let text = simulate(&job(&sets), &Asked::default(), false).unwrap();
        for part in ["k2-nano   plan `main`, 4 ranks", "tokens/s, MFU ", "rank 1 ", "transfer"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn slow_ranks_and_jitter_make_a_step_longer() {
        let sets = ["cluster=Preset(\"h100x64\")"];
        let time = |asked: &Asked| figure(asked, &sets, "makespan");
        let even = time(&Asked::default());
        let slow = Asked { slow: vec!["1=4".into()], ..Asked::default() };
        assert!(time(&slow) > 1.2 * even);
        let noisy = Asked { jitter: 0.2, seed: 3, ..Asked::default() };
        assert!(time(&noisy) != even && time(&noisy) == time(&noisy));
        for wrong in ["2=1.5", "0", "0=-1", "x=2"] {
            let asked = Asked { slow: vec![wrong.into()], ..Asked::default() };
            assert_eq!(simulate(&job(&sets), &asked, false).unwrap_err().code, 2, "{wrong}");
        }
    }

    #[test]
    fn this_machine_is_taken_where_no_cluster_is_named() {
        assert!(figure(&Asked::default(), &[], "tokens_per_second") > 0.0);
    }
}
