//! A plan as it was looked at: the resolved job, and the hashes of all it came from.
//!
//! `troupe plan k2.ron -o k2.plan.ron` writes one, and every command takes it in the place of a
//! job. It is refused if a text that it was made of has changed since, or if the job would be
//! lowered to another plan, so that what runs is what was approved.

use std::{
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use graphs::Plan;

use crate::{
    code, library,
    load::Loaded,
    overlay::Overlay,
    prepare::PrepareError,
    report::Finding,
    source::{Origin, Span},
    tree::{Kind, Value},
};

/// Name of the record in the file.
const NAME: &str = "SavedPlan";

/// What a saved plan promises about its lowered form.
#[derive(Clone, Debug)]
pub struct Seal {
    hash: String,
    place: Span,
}

/// The hash of the plans of all phases; that of the plan if there is one.
fn hash_of_all(plans: &[&Plan]) -> String {
    let hashes: Vec<String> = plans.iter().map(|plan| hash(plan)).collect();
    if let [one] = &hashes[..] { one.clone() } else { digest(&hashes.concat()) }
}

/// The hash of everything that a plan is.
pub fn hash(plan: &Plan) -> String {
    let mut hasher = Blake3(blake3::Hasher::new());
    let small = (plan.mesh, plan.batch, plan.zero, &plan.chunks, &plan.channels);
    hasher.write(format!("{small:?}").as_bytes());
    plan.orders.hash(&mut hasher);
    for program in plan.programs.iter().flatten() {
        program.instructions.hash(&mut hasher);
    }
    hasher.0.finalize().to_hex().to_string()
}

/// Lets what can be hashed go into a hash that does not change between runs.
struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finalize().as_bytes()[..8].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    }
}

/// The text of a saved plan that will stand in `folder`; `asked` is how the job was asked for.
///
/// # Errors
///
/// As [`Loaded::each_phase`].
pub fn text(loaded: &Loaded, asked: &str, folder: &Path) -> Result<String, PrepareError> {
    let mut inputs = String::new();
    for source in loaded.sources.all() {
        if let Some(name) = name(&source.origin, folder) {
            let line = format!("        {name:?}: \"{}\",\n", digest(&source.text));
            if !inputs.contains(&line) {
                inputs += &line;
            }
        }
    }
    let job = loaded.text();
    let job: Vec<&str> = job.trim_end().lines().collect();
    let job = job.join("\n    ");
    let plans = loaded.each_phase().map(|it| it.map(|it| it.plan));
    let plans: Vec<Plan> = plans.collect::<Result<_, _>>()?;
    let (version, hash) =
        (env!("CARGO_PKG_VERSION"), hash_of_all(&plans.iter().collect::<Vec<_>>()));
    Ok(format!(
        "// Made by `troupe plan {asked} -o`; runs as it stands while its inputs stay as they are.\n\
         {NAME}(\n    troupe: \"{version}\",\n    from: {asked:?},\n    inputs: {{\n{inputs}    }},\n    \
         plan: \"{hash}\",\n    job: {job},\n)\n"
    ))
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// How an input is named in a saved plan; arguments are in the job already.
fn name(origin: &Origin, folder: &Path) -> Option<String> {
    match origin {
        Origin::File(path) => Some(beside(path, folder).display().to_string()),
        Origin::LibraryJob(_) | Origin::Preset(_) => Some(origin.to_string()),
        Origin::Argument(_) => None,
    }
}

/// A path as seen from a folder, if it lies in it; else from the root.
fn beside(path: &Path, folder: &Path) -> PathBuf {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let path = whole(path);
    match path.strip_prefix(whole(folder)) {
        Ok(inside) => inside.into(),
        Err(_) => path,
    }
}

impl Overlay {
    /// Takes the job out of a saved plan, once its inputs are what they were; any other tree as
    /// it is.
    pub fn unsealed(&mut self, mut tree: Value, is_changed: bool) -> Value {
        if tree.name().is_none_or(|name| name.text != NAME) {
            return tree;
        }
        if is_changed {
            let message = "a saved plan runs as it was saved, without --plan and --set";
            let place = tree.name().map_or(tree.span, |name| name.span);
            self.findings.push(Finding::new(code::CLASH, message).at(place, ""));
        }
        let from = tree.field("from").and_then(Value::text).unwrap_or("JOB").to_string();
        let file = self.sources.get(tree.span.source).origin.clone();
        if let Some(Value { kind: Kind::Map(inputs), .. }) = tree.take("inputs") {
            for (name, hash) in inputs {
                self.input(&name, &hash, &file, &from);
            }
        }
        let seal = tree
            .take("plan")
            .and_then(|plan| Some(Seal { hash: plan.text()?.to_string(), place: plan.span }));
        let job = tree.take("job");
        match (seal, job) {
            (Some(seal), Some(job)) => {
                self.seal = Some(seal);
                job
            }
            _ => {
                let message = "a saved plan needs the fields inputs, plan and job";
                self.findings.push(Finding::new(code::MISSING, message).at(tree.span.first(), ""));
                Value::new(tree.span, Kind::Broken)
            }
        }
    }

    /// Notes an input that is not what it was.
    fn input(&mut self, name: &Value, hash: &Value, file: &Origin, from: &str) {
        let (Some(input), Some(expected)) = (name.text(), hash.text()) else { return };
        let now = current(input, file).map(|text| digest(&text));
        let message = match now {
            Ok(now) if now == expected => return,
            Ok(_) => format!("`{input}` has changed since this plan was saved"),
            Err(error) => format!("this plan was made of `{input}`: {error}"),
        };
        let finding = Finding::new(code::SEAL, message).at(name.span, "");
        self.findings.push(finding.help(format!("look at it again: troupe plan {from} -o FILE")));
    }
}

/// The text of an input as it is now.
fn current(input: &str, file: &Origin) -> Result<String, String> {
    let shelves = [("library job ", library::JOBS), ("preset ", library::MODELS)];
    for (kind, shelf) in shelves {
        if let Some(name) = input.strip_prefix(kind) {
            let text = library::find(shelf, name).map(str::to_string);
            return text.ok_or_else(|| "it is not in this version's library".into());
        }
    }
    let folder = match file {
        Origin::File(path) => path.parent().unwrap_or(Path::new("")).to_path_buf(),
        _ => PathBuf::new(),
    };
    std::fs::read_to_string(folder.join(input)).map_err(|error| error.to_string())
}

impl Seal {
    /// The mistake, if the phases of a job are lowered to other plans than those that were saved.
    pub fn broken(&self, plans: &[&Plan]) -> Option<Finding> {
        let finding = || {
            let message = "this version lowers the saved job to another plan";
            Finding::new(code::SEAL, message).at(self.place, "the plan that was saved")
        };
        (hash_of_all(plans) != self.hash).then(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, load};

    fn request(path: &Path) -> Request {
        Request { job: path.display().to_string(), ..Request::default() }
    }

    /// A folder with a job that has a base, and the plan of it saved beside.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("base.ron"), "Job(base: \"k2-nano\", seed: 5)").unwrap();
        let job = folder.path().join("job.ron");
        std::fs::write(&job, "Job(base: \"base.ron\", name: \"mine\")").unwrap();
        let loaded = load(&Request { sets: vec!["plan.mesh.dp=2".into()], ..request(&job) });
        let text = text(&loaded.unwrap(), "job.ron", folder.path()).unwrap();
        let saved = folder.path().join("job.plan.ron");
        std::fs::write(&saved, text).unwrap();
        (folder, saved)
    }

    fn page(request: &Request) -> String {
        load(request).unwrap_err().human(false)
    }

    #[test]
    fn a_saved_plan_is_the_job_that_was_looked_at() {
        let (_folder, saved) = folder();
        let loaded = load(&request(&saved)).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!((loaded.job.name.as_str(), loaded.job.seed), ("mine", 5));
        assert_eq!(loaded.plan.mesh.dp, 2);
    }

    #[test]
    fn a_saved_plan_is_refused_when_an_input_has_changed_and_says_which() {
        let (folder, saved) = folder();
        let base = folder.path().join("base.ron");
        let text = std::fs::read_to_string(&base).unwrap();
        std::fs::write(&base, format!("{text} ")).unwrap();
        let page = page(&request(&saved));
        assert!(page.contains("error[S025]: `base.ron` has changed"), "{page}");
        assert!(page.contains("troupe plan job.ron -o"), "{page}");
        std::fs::remove_file(&base).unwrap();
        assert!(self::page(&request(&saved)).contains("made of `base.ron`"));
    }

    #[test]
    fn a_saved_plan_takes_no_changes_and_keeps_its_lowered_form() {
        let (_folder, saved) = folder();
        let changed = Request { sets: vec!["seed=6".into()], ..request(&saved) };
        assert!(page(&changed).contains("without --plan and --set"));
        let text = std::fs::read_to_string(&saved).unwrap();
        std::fs::write(&saved, text.replace("dp: 2", "dp: 1")).unwrap();
        let page = page(&request(&saved));
        assert!(page.contains("lowers the saved job to another plan"), "{page}");
    }
}
