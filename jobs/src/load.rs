//! From a path and arguments to a checked job.

use graphs::{ModelGraph, Plan};

use crate::{
    check::{Checked, Lowered, check},
    code, de,
    job::{Job, Model},
    overlay::Overlay,
    parse::parse,
    phase::Phase,
    prepare::{self, PrepareError},
    report::{Finding, Report},
    source::{Origin, Sources, Span},
    tree::{Kind, Value},
};

/// What a command is asked to load.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Request {
    /// Path of a job file, or name of a library job.
    pub job: String,
    /// Plan to run instead of the job's: one of its plans, or a file.
    pub plan: Option<String>,
    /// Changes, `path=value`, in order.
    pub sets: Vec<String>,
    /// Name of the phase that is looked at; left out: the first.
    pub phase: Option<String>,
}

/// A job that keeps every rule, with all that was found out on the way.
///
/// Of a job with phases, one is looked at: [`Loaded::job`] is the job as that phase trains it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The job; of one with phases, as the phase that is looked at trains it.
    pub job: Job,
    /// Its model as a graph.
    pub graph: ModelGraph,
    /// Its plan, lowered.
    pub plan: Plan,
    /// The job with all its phases.
    pub whole: Job,
    /// Every phase, the first one first; a job without phases is one.
    pub phases: Vec<Phase>,
    /// Which of them is looked at.
    pub at: usize,
    /// The job as text would write it, after all overlays; each value knows its origin.
    pub tree: Value,
    /// The texts it came from.
    pub sources: Sources,
}

impl Loaded {
    /// The phase that is looked at.
    pub fn phase(&self) -> &Phase {
        &self.phases[self.at]
    }

    /// The same job with each of its phases looked at in turn, lowered again.
    ///
    /// # Errors
    ///
    /// A folder of a model that has changed since the job was loaded.
    pub fn each_phase(&self) -> impl Iterator<Item = Result<Loaded, PrepareError>> {
        (0..self.phases.len()).map(|at| {
            let job = self.phases[at].job.clone();
            let graph = prepare::shape(&job)?.graph;
            let plan = prepare::plan(&job, &graph, None, None)?;
            Ok(Loaded { job, graph, plan, at, ..self.clone() })
        })
    }
}

/// Reads a job, lays presets, bases, plans and arguments over each other, and checks the result.
///
/// # Errors
///
/// A [`Report`] with every mistake that could be found in one run.
pub fn load(request: &Request) -> Result<Loaded, Box<Report>> {
    let mut overlay = Overlay::default();
    let tree = layered(&mut overlay, request);
    let flag = "--phase ";
    let phase = request.phase.as_ref().map(|phase| {
        let text = format!("{flag}{phase}");
        let end = text.len() as u32;
        let source = overlay.sources.add(Origin::Argument(text.clone()), text);
        (phase.as_str(), Span { source, start: flag.len() as u32, end })
    });
    finish(overlay, tree, phase)
}

/// Reads the text of a resolved job, as a run or checkpoint folder keeps it.
///
/// # Errors
///
/// A [`Report`] with every mistake.
pub fn load_resolved(text: &str) -> Result<Job, Box<Report>> {
    let mut overlay = Overlay::default();
    let source = overlay.sources.add(Origin::File("job.ron".into()), text);
    let tree = parse(text, source, &mut overlay.findings);
    finish(overlay, tree, None).map(|loaded| loaded.whole)
}

/// Reads a model: the path of a file with `Decoder(..)` or `Graph(..)`, or the name of a preset.
///
/// # Errors
///
/// A [`Report`] with every mistake in its text.
pub fn load_model(name: &str) -> Result<Model, Box<Report>> {
    let mut overlay = Overlay::default();
    let source = overlay.sources.add(Origin::Argument(name.into()), name);
    let span = Span { source, start: 0, end: name.len() as u32 };
    let tree = overlay.model(name, span);
    let Overlay { sources, mut findings, .. } = overlay;
    let (model, _) = match tree.kind {
        Kind::Broken => (None, de::Poison::default()),
        _ => de::read::<Model>(&tree, &mut findings),
    };
    match model {
        Some(model) if findings.is_empty() => Ok(model),
        _ => Err(Report::new(findings, sources)),
    }
}

fn finish(
    overlay: Overlay,
    tree: Value,
    wanted: Option<(&str, Span)>,
) -> Result<Loaded, Box<Report>> {
    let Overlay { sources, mut findings, seal, .. } = overlay;
    // After a bracket that is not closed, fields are not where their author sees them.
    let is_torn = findings.iter().any(|finding| finding.code == code::UNCLOSED);
    if tree.kind == Kind::Broken || is_torn {
        return Err(Report::new(findings, sources));
    }
    let (job, poison) = de::read::<Job>(&tree, &mut findings);
    let Some(job) = job else { return Err(Report::new(findings, sources)) };
    let Checked { findings: found, lowered } = check(&job, &tree, &poison);
    findings.extend(found);
    let plans: Vec<&Plan> = lowered.iter().map(|it| &it.plan).collect();
    if let (Some(seal), false) = (seal, plans.is_empty()) {
        findings.extend(seal.broken(&plans));
    }
    let at = wanted.map_or(Ok(0), |(name, span)| position(&job, name, span));
    match (at, lowered.is_empty()) {
        (Ok(at), false) if findings.is_empty() => Ok(looked_at(at, job, lowered, tree, sources)),
        (at, _) => {
            findings.extend(at.err().map(|finding| *finding));
            Err(Report::new(findings, sources))
        }
    }
}

/// The place of a phase among the phases of the job.
fn position(job: &Job, wanted: &str, span: Span) -> Result<usize, Box<Finding>> {
    let phases: Vec<&str> =
        job.learners().flat_map(|(_, it)| &it.phases).map(|it| it.name.as_str()).collect();
    let at = phases.iter().position(|name| *name == wanted);
    at.ok_or_else(|| {
        let finding = Finding::new(code::UNKNOWN_PHASE, format!("unknown phase `{wanted}`"));
        let label = match phases.is_empty() {
            true => "the job has no phases".into(),
            false => de::listed("the job", wanted, &phases),
        };
        Box::new(finding.at(span, label))
    })
}

fn looked_at(
    at: usize,
    whole: Job,
    mut lowered: Vec<Lowered>,
    tree: Value,
    sources: Sources,
) -> Loaded {
    let phases = lowered.iter().map(|it| it.phase.clone()).collect();
    let Lowered { phase, graph, plan } = lowered.swap_remove(at);
    Loaded { job: phase.job, graph, plan, whole, phases, at, tree, sources }
}

/// All layers, from low to high.
fn layered(overlay: &mut Overlay, request: &Request) -> Value {
    let mut argument = |text: String, start: usize| {
        let end = text.len() as u32;
        let source = overlay.sources.add(Origin::Argument(text.clone()), text);
        Span { source, start: start as u32, end }
    };
    let asked = argument(request.job.clone(), 0);
    let flag = "--plan ";
    let chosen = request.plan.as_ref().map(|plan| (plan, argument(format!("{flag}{plan}"), 7)));
    let mut tree = overlay.job(&request.job, asked);
    if tree.kind == Kind::Broken {
        return tree;
    }
    tree = overlay.unsealed(tree, chosen.is_some() || !request.sets.is_empty());
    if tree.kind == Kind::Broken {
        return tree;
    }
    overlay.likes(&mut tree);
    if let Some((plan, span)) = chosen {
        overlay.choose(&mut tree, plan, span);
    }
    for argument in &request.sets {
        overlay.set(&mut tree, argument);
    }
    overlay.likes(&mut tree);
    overlay.phase_plans(&mut tree);
    overlay.expanded(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(job: &str) -> Request {
        Request { job: job.into(), ..Request::default() }
    }

    #[test]
    fn every_library_job_loads_with_each_of_its_plans() {
        for (name, _) in crate::library::JOBS {
            let loaded = load(&request(name)).unwrap_or_else(|report| panic!("{report}"));
            for plan in loaded.job.plans.keys() {
                let request = Request { plan: Some(plan.clone()), ..request(name) };
                let loaded = load(&request).unwrap_or_else(|report| panic!("{name}: {report}"));
                assert_eq!(loaded.job.plan_name(), Some(plan.as_str()));
            }
        }
    }
}
