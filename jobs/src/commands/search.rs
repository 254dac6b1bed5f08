//! `search`: better plans for a job, and why the others lost.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use graphs::{
    ModelGraph, PlanSpec, lower,
    plan::Batch,
    price::Profile,
    search::{Candidate, Found, Price, Pricing, Reach, Space, Verdict, search as search_space},
};
use ops::Op;
use serde_json::{Value, json};

use crate::{
    consequences::of_plan,
    exit::Failure,
    job::Job,
    load::Loaded,
    machine, profile,
    report::SCHEMA,
    view::{
        progress::{bytes, grouped},
        words::{plan as plan_text, short, time},
    },
};

/// Neighbours of the best plan that are shown.
const NEIGHBOURS: usize = 8;

/// What is asked beside the job.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Ranks to use; left out: all of the cluster, or as many as the job's plan has.
    pub ranks: Option<usize>,
    /// Bytes that a rank may hold; left out: what the job expects, or what a device holds.
    pub limit: Option<u64>,
    /// Sequences of one unit to try.
    pub microbatches: Vec<usize>,
    /// Meshes that are tried under every schedule.
    pub meshes: usize,
    /// Whether what saves memory or hides messages is varied too.
    pub policies: bool,
    /// Plans that are shown.
    pub top: usize,
    /// File that `troupe measure` wrote.
    pub profile: Option<PathBuf>,
    /// Folder for the plans that are shown, a file each.
    pub output: Option<PathBuf>,
}

/// Searches plans for a job.
///
/// # Errors
///
/// A profile that cannot be read, a folder that cannot be written, or a job whose own plan hangs.
pub fn search(loaded: &Loaded, asked: &Asked, as_json: bool) -> Result<String, Failure> {
    let job = &loaded.job;
    let profile = asked.profile.as_deref().map(profile::read).transpose()?;
    let pricing = JobPricing { job, graph: &loaded.graph, profile: profile.as_ref() };
    let cluster = machine::cluster(job);
    let ranks = asked.ranks.or(cluster.ranks()).unwrap_or(loaded.plan.mesh.ranks());
    let expected = job.expect.max_memory.map(|it| it.0);
    let limit = asked.limit.or(expected).unwrap_or(cluster.memory(ranks));
    let reach =
        Reach { limit, meshes: asked.meshes, finalists: 3 * asked.top, policies: asked.policies };
    let space = space(loaded, ranks, &asked.microbatches);
    let found = search_space(&space, &pricing, reach);
    let own = pricing.exactly(job.plan());
    if let Some(folder) = &asked.output {
        write_plans(&found, asked.top, folder)?;
    }
    let result = Searched { loaded, ranks, limit, top: asked.top, found, own };
    Ok(if as_json { format!("{}\n", result.json()) } else { result.page() })
}

fn space(loaded: &Loaded, ranks: usize, microbatches: &[usize]) -> Space {
    let experts = loaded.graph.nodes().filter_map(|node| match &node.op {
        Op::Dispatch(op) => Some(op.experts),
        _ => None,
    });
    let layers = loaded.graph.nodes().filter(|node| matches!(node.op, Op::MlaAttention(_)));
    Space {
        ranks,
        sequences: loaded.plan.batch.sequences,
        chunks: layers.count().max(1),
        experts: experts.reduce(common_divisor).unwrap_or(1),
        microbatches: microbatches.to_vec(),
        like: PlanSpec { schedule: None, weight_grad: None, ..loaded.job.plan().clone() },
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Prices plans for the model, batch and cluster of a job.
struct JobPricing<'a> {
    job: &'a Job,
    graph: &'a ModelGraph,
    profile: Option<&'a Profile>,
}

impl JobPricing<'_> {
    fn price(&self, spec: &PlanSpec, batch: Batch) -> Result<Price, String> {
        let plan = lower(self.graph, spec, batch).map_err(|mistakes| {
            let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            said.join("; ")
        })?;
        let found = of_plan(self.job, self.graph, &plan, self.profile);
        let found = found.map_err(|failure| failure.to_string())?;
        Ok(Price { seconds: found.outcome.makespan, bytes: found.fullest().1 })
    }
}

impl Pricing for JobPricing<'_> {
    /// Steps of `4 p` and `8 p` microbatches, and from there along a line: after the warm-up, time
    /// grows by the same for every microbatch, and memory too, if it grows at all.
    fn roughly(&self, spec: &PlanSpec) -> Result<Price, String> {
        let batch = self.job.batch(spec);
        let ranks = spec.mesh.data_ranks();
        let short = 4 * spec.mesh.pp * batch.own_lanes(ranks);
        let unit = spec.microbatch * ranks;
        let microbatches = batch.sequences / unit;
        if microbatches <= 2 * short {
            return self.exactly(spec);
        }
        let step = |count: usize| self.price(spec, Batch { sequences: count * unit, ..batch });
        let (one, two) = (step(short)?, step(2 * short)?);
        let more = (microbatches - 2 * short) as f64 / short as f64;
        let along = |one: f64, two: f64| two + (two - one) * more;
        Ok(Price {
            seconds: along(one.seconds, two.seconds),
            bytes: along(one.bytes as f64, two.bytes as f64) as u64,
        })
    }

    fn exactly(&self, spec: &PlanSpec) -> Result<Price, String> {
        self.price(spec, self.job.batch(spec))
    }
}

fn write_plans(found: &Found, top: usize, folder: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::environment(format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for (at, candidate) in found.candidates.iter().take(top).enumerate() {
        let path = folder.join(format!("{:02}.ron", at + 1));
        fs::write(&path, plan_text(&candidate.spec)).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// What a search found, with what is told about it.
struct Searched<'a> {
    loaded: &'a Loaded,
    ranks: usize,
    limit: u64,
    top: usize,
    found: Found,
    own: Result<Price, String>,
}

impl Searched<'_> {
    fn page(&self) -> String {
        let all = &self.found.candidates;
        let exact = all.iter().filter(|it| it.is_exact).count();
        let job = &self.loaded.job;
        let mut page = format!(
            "{}   {} plans for {} ranks on {}, at most {} a rank; {exact} priced in full\n",
            job.name,
            all.len(),
            self.ranks,
            machine::cluster(job),
            size(self.limit),
        );
        if !matches!(all.first().map(|it| &it.verdict), Some(Verdict::Fits(_))) {
            page += "no plan fits; the smallest are shown\n";
        }
        let front = self.found.front();
        let mut rows = vec![(" own".to_string(), short(job.plan()), self.own_told())];
        for (at, candidate) in all.iter().take(self.top).enumerate() {
            let mark = if front.contains(&candidate) { "*" } else { " " };
            rows.push((
                format!("{:>3}{mark}", at + 1),
                short(&candidate.spec),
                self.told(candidate),
            ));
        }
        rows.rotate_left(1);
        let width = rows.iter().map(|(_, plan, _)| plan.len()).max().unwrap_or(0);
        for (mark, plan, told) in rows {
            let _ = writeln!(page, "{mark} {plan:width$}  {told}");
        }
        page += "  * no other is better in both time and memory\n";
        page + &self.neighbours()
    }

    /// What the job's own plan comes to.
    fn own_told(&self) -> String {
        match &self.own {
            Ok(price) => self.priced(*price),
            Err(reason) => reason.clone(),
        }
    }

    /// Why each plan beside the best one lost.
    fn neighbours(&self) -> String {
        let Some(best) = self.found.candidates.first() else { return String::new() };
        let mut text = String::from("beside the first, one thing changed:\n");
        let neighbours: Vec<&Candidate> =
            self.found.neighbours(&best.spec).into_iter().take(NEIGHBOURS).collect();
        let width = neighbours.iter().map(|it| short(&it.spec).len()).max().unwrap_or(0);
        for other in neighbours {
            let why = match (&other.verdict, best.verdict.price()) {
                (Verdict::Refused(reason), _) => reason.clone(),
                (Verdict::TooBig(price), _) if price.bytes > self.limit => {
                    format!("{} too many", size(price.bytes - self.limit))
                }
                (Verdict::Fits(price) | Verdict::TooBig(price), Some(first)) => {
                    against(*price, first)
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "     {:width$}  {why}", short(&other.spec));
        }
        text
    }

    fn told(&self, candidate: &Candidate) -> String {
        match &candidate.verdict {
            Verdict::Fits(price) | Verdict::TooBig(price) => self.priced(*price),
            Verdict::Refused(reason) => reason.clone(),
        }
    }

    fn priced(&self, price: Price) -> String {
        let tokens = self.loaded.plan.batch.tokens() as f64;
        let rate = grouped((tokens / price.seconds) as u64);
        let over = if price.bytes > self.limit { "  too big" } else { "" };
        format!("{:>10}  {rate:>10} tokens/s  {:>9}{over}", time(price.seconds), size(price.bytes))
    }

    fn json(&self) -> Value {
        let price = |price: Price| json!({ "seconds": price.seconds, "bytes": price.bytes });
        let front = self.found.front();
        let candidate = |it: &Candidate| {
            let reason = match &it.verdict {
                Verdict::Refused(reason) => Some(reason),
                _ => None,
            };
            json!({
                "plan": it.spec,
                "fits": matches!(it.verdict, Verdict::Fits(_)),
                "price": it.verdict.price().map(price),
                "refused": reason,
                "exact": it.is_exact,
                "front": front.contains(&it),
            })
        };
        json!({
            "schema": SCHEMA,
            "job": self.loaded.job.name,
            "ranks": self.ranks,
            "limit": self.limit,
            "own": self.own.as_ref().ok().copied().map(price),
            "candidates": self.found.candidates.iter().map(candidate).collect::<Vec<_>>(),
        })
    }
}

fn size(count: u64) -> String {
    bytes(count as usize)
}

/// One price against another, in words.
fn against(price: Price, first: Price) -> String {
    let time = 100.0 * (price.seconds / first.seconds - 1.0);
    let memory = 100.0 * (price.bytes as f64 / first.bytes as f64 - 1.0);
    format!("{time:+.1} % time, {memory:+.1} % memory")
}
