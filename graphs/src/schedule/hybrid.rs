//! Hybrid: interleaved 1F1B in pairs, with weight gradients apart where a stage would wait.
//!
//! Warm-up and pairs are Kimi K2's (arXiv:2507.20534, section 2.4.2; Megatron-LM with
//! `--overlap-moe-expert-parallel-comm`): one forward pass more in the warm-up, then each forward
//! pass beside the backward pass of another microbatch. In the cool-down no forward pass is left to
//! pair with, so, as in a zero-bubble schedule (Qi et al., arXiv:2401.10241), the input's gradient
//! is sent before the weights' are computed, and stages further down stop making earlier ones
//! wait. The price is nothing: no activation is held longer than the peak has room for.
//!
//! With [`Hybrid::split_pairs`] the pairs are of `F` and `I`, and stage `r` is `r` weight gradients
//! behind all along, as in ZB-H1; that also shortens the way of the first gradients back. What is
//! hidden then has to fit under `F` and `I` alone. `docs/hybrid.md` has the times.

use serde::{Deserialize, Serialize};

use crate::{
    bare::Step,
    passes::split::put_off,
    schedule::{Interleaved, Pipeline, Unfit, interleaved::given},
};

/// Parameters of the hybrid.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hybrid {
    /// Whether the weight gradients leave the pairs too.
    pub split_pairs: bool,
    /// Microbatches of one chunk before the next chunk's turn; left out: as many as stages.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub group: Option<usize>,
}

impl Hybrid {
    /// Nothing asked for.
    pub const PLAIN: Self = Hybrid { split_pairs: false, group: None };

    fn pairs(&self) -> Interleaved {
        let Hybrid { group, .. } = *self;
        Interleaved { extra_warmup: 1, paired: true, group, ..Interleaved::PLAIN }
    }

    /// Whether the microbatches fall into groups.
    pub(super) fn fits(&self, pipeline: Pipeline) -> Result<(), Unfit> {
        self.pairs().fits(pipeline)
    }

    /// The cells of one stage.
    pub(super) fn steps(&self, pipeline: Pipeline, stage: usize) -> Vec<Step> {
        let mut steps = self.pairs().steps(pipeline, stage);
        if self.split_pairs {
            return put_off(steps, stage);
        }
        let forward = |step: &Step| !step.is_backward();
        let cool_down = steps.iter().rposition(forward).map_or(0, |last| last + 1);
        let rest = steps.split_off(cool_down);
        steps.extend(put_off(rest, 0));
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bare::Bare,
        schedule::{Schedule, tests::golden},
        simulate::{Costs, Timing, simulate},
    };

    const PLUS: Interleaved = Interleaved { extra_warmup: 1, paired: true, ..Interleaved::PLAIN };

    fn timing(schedule: &Schedule, (p, v, m): (usize, usize, usize), pair: f64) -> Timing {
        let pipeline = Pipeline { stages: p, virtual_stages: v, microbatches: m };
        assert_eq!(schedule.fits(pipeline), Ok(()), "{schedule:?} {pipeline:?}");
        let bare = Bare::of(schedule, pipeline).unwrap();
        let pair = Some(pair);
        let costs = Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, pair, handling: 0.0 };
        simulate(&bare, &costs).unwrap()
    }

    fn most(timing: &Timing) -> usize {
        timing.peak.iter().copied().max().unwrap()
    }

    fn plus() -> Schedule {
        Schedule::Interleaved1F1B(PLUS)
    }

    fn hybrids() -> [Schedule; 2] {
        [false, true].map(|split_pairs| Schedule::Hybrid(Hybrid { split_pairs, group: None }))
    }

    #[test]
    fn pairs_stay_and_weight_gradients_leave_the_cool_down() {
        let pipeline = Pipeline { stages: 2, virtual_stages: 1, microbatches: 4 };
        let row = |rule: Hybrid, stage| {
            let cells = rule.steps(pipeline, stage).into_iter();
            cells.map(|step| step.to_string().replace("OVERLAP_F_B", "")).collect::<Vec<_>>()
        };
        let plain = row(Hybrid::PLAIN, 0).join(" ");
        assert_eq!(plain, "0F0 0F1 0F2 (0F3;0B0) 0I1 0W1 0I2 0W2 0I3 0W3");
        let split = Hybrid { split_pairs: true, group: None };
        let last = "1F0 (1F1;1I0) (1F2;1I1) 1W0 (1F3;1I2) 1W1 1I3 1W2 1W3";
        assert_eq!(row(split, 1).join(" "), last);
    }

    #[test]
    fn the_hybrid_is_never_slower_than_the_pairs_alone_and_holds_no_more() {
        let mut won = [0, 0];
        for (p, v) in (1..=8_usize).flat_map(|p| (1..=4).map(move |v| (p, v))) {
            for m in (1..=24).filter(|&m: &usize| m < p || m.is_multiple_of(p)) {
                for pair in [3.0, 2.25, 2.0] {
                    let shape = (p, v, m);
                    let base = timing(&plus(), shape, pair);
                    for (which, hybrid) in hybrids().iter().enumerate() {
                        let ours = timing(hybrid, shape, pair);
                        assert!(ours.makespan <= base.makespan, "{hybrid:?} {shape:?} {pair}");
                        assert_eq!(most(&ours), most(&base), "{hybrid:?} {shape:?}");
                        won[which] += usize::from(ours.makespan < base.makespan);
                    }
                }
            }
        }
        assert!(won[0] > 200 && won[1] > won[0], "{won:?}");
    }

    /// The table of `docs/hybrid.md`.
    fn table() -> String {
        let mut table = String::new();
        for (p, m) in [(4, 16), (8, 32), (16, 64)] {
            for pair in [3.0, 2.25, 2.0] {
                let time = |it: &Schedule| timing(it, (p, 2, m), pair);
                let (base, [cool, all]) = (time(&plus()), hybrids().map(|it| time(&it)));
                assert_eq!([most(&cool), most(&all)], [most(&base); 2]);
                let v = time(&Schedule::DualPipeV);
                let gain = |it: &Timing| 100.0 * (1.0 - it.makespan / base.makespan);
                table += &format!(
                    "| {p} | {m} | {pair} | {} | {} ({:.1} %) | {} ({:.1} %) | {} | {} | {} |\n",
                    base.makespan,
                    cool.makespan,
                    gain(&cool),
                    all.makespan,
                    gain(&all),
                    v.makespan,
                    most(&base),
                    most(&v),
                );
            }
        }
        table
    }

    #[test]
    fn the_times_in_the_documentation_are_those_of_the_simulator() {
        let told = include_str!("../../../docs/hybrid.md");
        let table = table();
        assert!(told.contains(&table), "docs/hybrid.md should have\n{table}");
    }

    #[test]
    fn pairs_equal_those_of_megatron() {
        let name = "megatron/megatron_plus1_paired_p4_v2_m16.csv";
        let Some(path) = golden(name) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let expected = Bare::new(crate::csv::read(&text).unwrap()).unwrap();
        let pipeline = Pipeline { stages: 4, virtual_stages: 2, microbatches: 16 };
        assert_eq!(Bare::of(&plus(), pipeline), Ok(expected));
    }

    #[test]
    fn times_of_pairs_equal_those_of_another_simulator() {
        let Some(path) = golden("ep_overlap_vpp_vs_dualpipev.json") else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        for entry in all["entries"].as_array().unwrap() {
            let number = |key: &str| entry[key].as_f64().unwrap();
            let shape = (number("p") as usize, number("v") as usize, number("m") as usize);
            let compare = |schedule: &Schedule, name: &str| {
                let timing = timing(schedule, shape, number("pair_cost"));
                assert_eq!(timing.makespan, number(name), "{entry}");
                let peak = most(&timing) as f64;
                assert_eq!(peak, number(&format!("{name}_peak")), "{entry}");
            };
            compare(&plus(), "vpp_plus1");
            compare(&Schedule::DualPipeV, "dualpipev");
        }
    }
}
