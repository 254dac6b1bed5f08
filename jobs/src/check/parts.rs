//! Actors, their names, and the numbers of the run.

use super::{Places, paths::Paths};
use crate::{
    code,
    de::listed,
    job::{Actor, Job, Mix, Model, PlanChoice, Tokenizer},
    overlay::unknown_plan,
    quantity::Every,
    report::Finding,
};

/// Tokens of the smallest tokenizer: the bytes and the end of a document.
const BYTES: usize = 257;

/// A name that can be the name of a folder.
pub fn name(job: &Job, places: Places<'_>) -> Option<Finding> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
    let is_folder = job.name.chars().all(is_plain) && job.name.chars().any(char::is_alphanumeric);
    if is_folder || !places.sound(&["name"]) {
        return None;
    }
    let message = format!("expected a name for a folder, got \"{}\"", job.name);
    let label = "letters, digits, `-`, `_`, `.` and blanks";
    Some(Finding::new(code::VALUE, message).at(places.of("name"), label))
}

/// One learner, and names that exist and mean the right kind of actor.
pub fn actors(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let learners: Vec<&str> = job.learners().map(|(name, _)| name).collect();
    if learners.is_empty() && places.sound(&["actors"]) {
        let finding = Finding::new(code::LEARNER, "no actor learns");
        let place = places.of("actors");
        findings.push(finding.at(place, "").help("add `\"learner\": Train(..),`"));
    }
    if let [first, second, ..] = learners[..] {
        let finding = Finding::new(code::LEARNER, "two actors learn; a job has one learner");
        let finding = finding.at(places.of(&format!("actors.{second}")), "the second");
        findings.push(finding.at(places.of(&format!("actors.{first}")), "the first"));
    }
    for (name, actor) in &job.actors {
        let path = format!("actors.{name}");
        match actor {
            Actor::Corpus(_) => {}
            Actor::Mix(mix) if places.sound(&[&path]) => {
                findings.extend(parts_of_mix(job, mix, &path, places));
            }
            Actor::Mix(_) | Actor::Train(_) => {}
        }
    }
    findings
}

fn parts_of_mix(job: &Job, mix: &Mix, path: &str, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, weight) in &mix.0 {
        let path = format!("{path}.{name}");
        findings.extend(reads(job, name, &["Corpus"], &path, places));
        if !(weight.is_finite() && *weight > 0.0) {
            findings.push(not_positive(&path, &weight.to_string(), places));
        }
    }
    if mix.0.is_empty() {
        let finding = Finding::new(code::POSITIVE, "a mix needs a corpus");
        findings.push(finding.at(places.of(path), "write {\"name\": weight}"));
    }
    findings
}

/// What a phase minimises, and that the actors that it names can be read.
pub(super) fn losses(job: &Job, paths: &Paths<'_>, places: Places<'_>) -> Vec<Finding> {
    let loss = &paths.train.loss;
    let mut findings = Vec::new();
    for (number, loss) in loss.iter().enumerate() {
        let path = paths.of(&format!("loss.{number}.of"));
        findings.extend(reads(job, loss.of(), &["Corpus", "Mix"], &path, places));
    }
    if loss.len() != 1 {
        let message = format!("expected one loss, got {}", loss.len());
        let place = places.of(&paths.of("loss"));
        findings.push(Finding::new(code::CLASH, message).at(place, ""));
    }
    findings
}

/// Whether `name` is an actor of one of the kinds.
fn reads(job: &Job, name: &str, kinds: &[&str], path: &str, places: Places<'_>) -> Option<Finding> {
    let place = places.of(path);
    match job.actors.get(name) {
        None => {
            let known: Vec<&str> = job.actors.keys().map(String::as_str).collect();
            let finding = Finding::new(code::UNKNOWN_ACTOR, format!("unknown actor `{name}`"));
            Some(finding.at(place, listed("the job", name, &known)))
        }
        Some(actor) if !kinds.contains(&actor.kind()) => {
            let wanted = kinds.join(" or ");
            let message = format!("expected a {wanted}, but `{name}` is a {}", actor.kind());
            let finding = Finding::new(code::ACTOR_KIND, message).at(place, "");
            Some(finding.at(places.of(&format!("actors.{name}")), "here"))
        }
        Some(_) => None,
    }
}

pub(super) fn not_positive(path: &str, got: &str, places: Places<'_>) -> Finding {
    let field = path.rsplit('.').next().unwrap_or(path);
    let message = format!("`{field}` is {got}; expected more than 0");
    Finding::new(code::POSITIVE, message).at(places.of(path), "")
}

/// Numbers of the run that must be positive or fit each other.
pub fn numbers(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if job.stop.is_some_and(|stop| stop.steps(1) == 0) && places.sound(&["stop"]) {
        findings.push(not_positive("stop", "0", places));
    }
    if let Some(checkpoint) = &job.checkpoint {
        if checkpoint.keep == 0 {
            findings.push(not_positive("checkpoint.keep", "0", places));
        }
        let is_always = matches!(checkpoint.every, Every::Steps(0) | Every::Seconds(0));
        if is_always && places.sound(&["checkpoint.every"]) {
            findings.push(not_positive("checkpoint.every", "0", places));
        }
    }
    if places.sound(&["model", "tokenizer"]) {
        findings.extend(vocabulary(job, places));
    }
    findings
}

/// Numbers of a phase that must be positive, and a batch of whole sequences.
pub(super) fn batch(paths: &Paths<'_>, places: Places<'_>) -> Vec<Finding> {
    let train = &paths.train;
    let (batch, context) = (train.batch.0, train.context.0);
    let clip = train.clip.map_or(1.0, f64::from);
    let fields = [
        ("batch", batch as f64),
        ("context", context as f64),
        ("lanes", train.lanes.unwrap_or(1) as f64),
        ("clip", clip),
    ];
    let wrong = fields.into_iter().filter(|(_, value)| !(value.is_finite() && *value > 0.0));
    let mut findings: Vec<Finding> = wrong
        .map(|(field, value)| not_positive(&paths.of(field), &value.to_string(), places))
        .collect();
    if context > 0 && !batch.is_multiple_of(context) {
        let message = format!("a batch of {batch} tokens is not whole sequences of {context}");
        let below = batch / context * context;
        let near: Vec<String> = [below, below + context]
            .into_iter()
            .filter(|batch| *batch > 0)
            .map(|batch| batch.to_string())
            .collect();
        let finding = Finding::new(code::BATCH, message).at(places.of(&paths.of("batch")), "");
        let finding = finding.at(places.of(&paths.of("context")), "`context` is from here");
        findings.push(finding.help(format!("nearest batches that do: {}", near.join(", "))));
    }
    findings
}

/// A tokenizer made here must know every byte and make no more tokens than the model has.
fn vocabulary(job: &Job, places: Places<'_>) -> Option<Finding> {
    let Model::Decoder(decoder) = &job.model else { return None };
    let tokens = match job.tokenizer {
        Tokenizer::Bytes => BYTES,
        Tokenizer::Bpe { vocab } if vocab < BYTES => {
            let message = format!("the tokenizer has {vocab} tokens; expected {BYTES} or more");
            let finding = Finding::new(code::VALUE, message).at(places.of("tokenizer"), "");
            return Some(finding.help("every byte is a token, and so is the end of a document"));
        }
        Tokenizer::Bpe { vocab } => vocab,
        Tokenizer::File(_) => return None,
    };
    (tokens > decoder.vocab).then(|| {
        let message =
            format!("the tokenizer makes {tokens} tokens, the model has {}", decoder.vocab);
        let finding = Finding::new(code::VOCABULARY, message);
        let finding = finding.at(places.of("tokenizer"), "");
        finding.at(places.of("model.vocab"), format!("`vocab: {}` is from here", decoder.vocab))
    })
}

/// The named plans, the job's and those of phases, must exist.
pub fn plan_names(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let mut choices = vec![("plan".to_string(), &job.plan)];
    for (learner, train) in job.learners() {
        for (at, phase) in train.phases.iter().enumerate() {
            let path = format!("actors.{learner}.phases.{at}.plan");
            choices.extend(phase.plan.as_ref().map(|plan| (path, plan)));
        }
    }
    let wrong = choices.iter().filter_map(|(path, choice)| plan_name(job, path, choice, places));
    wrong.collect()
}

fn plan_name(job: &Job, path: &str, choice: &PlanChoice, places: Places<'_>) -> Option<Finding> {
    let PlanChoice::Named(name) = choice else { return None };
    if job.plans.contains_key(name) || !places.sound(&[path, "plans"]) {
        return None;
    }
    let known: Vec<&str> = job.plans.keys().map(String::as_str).collect();
    let place = match places.tree.at(path).and_then(|plan| plan.wrapped("Named")) {
        Some((_, span)) => span,
        None => places.of(path),
    };
    Some(unknown_plan(name, &known, place))
}
