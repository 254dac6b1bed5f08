//! Actors, their names, and the numbers of the learner.

use super::Places;
use crate::{
    code,
    de::listed,
    job::{Actor, Job, LearningRate, Mix, Model, PlanChoice, Tokenizer, Train},
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
            Actor::Train(train) if places.sound(&[&format!("{path}.loss")]) => {
                findings.extend(losses(job, train, &path, places));
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

fn losses(job: &Job, train: &Train, path: &str, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, loss) in train.loss.iter().enumerate() {
        let path = format!("{path}.loss.{number}.of");
        findings.extend(reads(job, loss.of(), &["Corpus", "Mix"], &path, places));
    }
    if train.loss.len() != 1 {
        let message = format!("expected one loss, got {}", train.loss.len());
        let place = places.of(&format!("{path}.loss"));
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

/// Numbers of the learner and the run that must be positive or fit each other.
pub fn numbers(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if job.stop.steps(1) == 0 && places.sound(&["stop"]) {
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
    for (name, train) in job.learners() {
        let path = format!("actors.{name}");
        if places.sound(&[&format!("{path}.batch"), &format!("{path}.context")]) {
            findings.extend(batch(train, &path, places));
        }
        if places.sound(&[&format!("{path}.lr")]) {
            findings.extend(rate(train, &path, places));
        }
    }
    if places.sound(&["model", "tokenizer"]) {
        findings.extend(vocabulary(job, places));
    }
    findings
}

fn batch(train: &Train, path: &str, places: Places<'_>) -> Vec<Finding> {
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
        .map(|(field, value)| not_positive(&format!("{path}.{field}"), &value.to_string(), places))
        .collect();
    if context > 0 && !batch.is_multiple_of(context) {
        let message = format!("a batch of {batch} tokens is not whole sequences of {context}");
        let below = batch / context * context;
        let near: Vec<String> = [below, below + context]
            .into_iter()
            .filter(|batch| *batch > 0)
            .map(|batch| batch.to_string())
            .collect();
        let finding =
            Finding::new(code::BATCH, message).at(places.of(&format!("{path}.batch")), "");
        let finding = finding.at(places.of(&format!("{path}.context")), "`context` is from here");
        findings.push(finding.help(format!("nearest batches that do: {}", near.join(", "))));
    }
    findings
}

fn rate(train: &Train, path: &str, places: Places<'_>) -> Vec<Finding> {
    let LearningRate::Wsd(wsd) = &train.lr;
    let mut findings = Vec::new();
    let place = |field: &str| places.of(&format!("{path}.lr.{field}"));
    if !(wsd.peak.is_finite() && wsd.peak > 0.0) {
        findings.push(not_positive(&format!("{path}.lr.peak"), &wsd.peak.to_string(), places));
    }
    let steps = |extent: crate::quantity::Extent| extent.steps(train.batch.0);
    match (&wsd.decay, wsd.stable) {
        (Some(_), None) => {
            let finding = Finding::new(code::RATE, "`decay` needs `stable`, where it begins");
            findings.push(finding.at(place("decay"), "").help("add `stable: \"1000 steps\",`"));
        }
        (_, Some(stable)) if steps(stable) < steps(wsd.warmup) => {
            let finding = Finding::new(code::RATE, "`stable` ends before `warmup` does");
            let finding = finding.at(place("stable"), "counted from the start of the run");
            findings.push(finding.at(place("warmup"), "`warmup` is from here"));
        }
        _ => {}
    }
    let to = wsd.decay.as_ref().map_or(0.0, |decay| decay.end().0);
    if !(0.0..=wsd.peak).contains(&to) {
        let message = format!("the rate decays to {to}; expected 0 to the peak of {}", wsd.peak);
        findings.push(Finding::new(code::RATE, message).at(place("decay.to"), ""));
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

/// The named plan must exist.
pub fn plan_names(job: &Job, places: Places<'_>) -> Option<Finding> {
    let PlanChoice::Named(name) = &job.plan else { return None };
    if job.plans.contains_key(name) || !places.sound(&["plan", "plans"]) {
        return None;
    }
    let known: Vec<&str> = job.plans.keys().map(String::as_str).collect();
    let place = match places.tree.field("plan").and_then(|plan| plan.wrapped("Named")) {
        Some((_, span)) => span,
        None => places.of("plan"),
    };
    Some(unknown_plan(name, &known, place))
}
