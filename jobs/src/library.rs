//! The jobs, models and clusters that ship with the program.

/// Models, which a job names with `Preset(..)`.
pub const MODELS: &[(&str, &str)] = &[
    ("k2-nano", include_str!("../library/models/k2-nano.ron")),
    ("k2-mini", include_str!("../library/models/k2-mini.ron")),
    ("moonlight-16b-a3b", include_str!("../library/models/moonlight-16b-a3b.ron")),
    ("deepseek-v3", include_str!("../library/models/deepseek-v3.ron")),
    ("kimi-k2-1t", include_str!("../library/models/kimi-k2-1t.ron")),
];

/// Clusters, which a job names with `Preset(..)`.
pub const CLUSTERS: &[(&str, &str)] = &[
    ("h800x256", include_str!("../library/clusters/h800x256.ron")),
    ("h100x64", include_str!("../library/clusters/h100x64.ron")),
    ("gb300x256", include_str!("../library/clusters/gb300x256.ron")),
];

/// Jobs, which a command names without a path.
pub const JOBS: &[(&str, &str)] = &[
    ("k2-nano", include_str!("../library/jobs/k2-nano.ron")),
    ("k2-mini", include_str!("../library/jobs/k2-mini.ron")),
    ("k2-lab", include_str!("../library/jobs/k2-lab.ron")),
    ("k2-pretrain", include_str!("../library/jobs/k2-pretrain.ron")),
];

/// The names of a shelf.
pub fn names<'a>(shelf: &'a [(&'a str, &'a str)]) -> Vec<&'a str> {
    shelf.iter().map(|(name, _)| *name).collect()
}

/// The text under a name.
pub fn find<'a>(shelf: &[(&str, &'a str)], wanted: &str) -> Option<&'a str> {
    shelf.iter().find(|(name, _)| *name == wanted).map(|(_, text)| *text)
}
