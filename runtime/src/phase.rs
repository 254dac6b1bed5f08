//! The optimizer phase of one actor: join gradients, update what it owns, exchange new values.
//!
//! The order of messages does not matter: a sum goes from holder to holder in the order of their
//! lanes, and an update needs nothing but the whole gradient and the verdict.

use graphs::memory::{ActorMemory, Fixed, Reserve};
use ops::{Op, Rule, Tensor, optim::State};

use crate::{
    board::Doing,
    message::Message,
    report::{Hash, Joined, Measured, Report},
    trace::{Part, Recorder},
    verdict::Verdict,
    worker::Worker,
};

impl Worker {
    /// After the last instruction: reports what was seen and sends gradients on to their owners.
    pub(crate) fn finish_program(&mut self) {
        let memory = Box::new(self.measured());
        self.units.clear();
        let seen = std::mem::take(&mut self.seen);
        self.post().report(Report::Computed { from: self.me, seen, memory });
        self.write_board(Doing::Working("sending gradients to their owners".into()));
        self.phase.is_open = true;
        for parameter in self.trained(false) {
            self.pass_on(parameter);
        }
        self.report_joined();
        self.write_board(Doing::Waiting("gradients of others and the verdict".into()));
    }

    /// What the program held, in the plan's terms.
    fn measured(&mut self) -> Measured {
        let units = self.units.values().flat_map(|(tokens, targets)| [tokens, targets]);
        let inputs = units.map(|tensor| tensor.bytes().len() as u64).sum();
        let trail = std::mem::take(&mut self.trail);
        let peak = self.flights.tide.peak();
        let first = self.brief.plan.first_number(self.me.stage, self.me.side);
        let actor = ActorMemory {
            address: self.me,
            fixed: Fixed { inputs, ..self.holdings.fixed() },
            reserve: Reserve { messages: self.mailbox.most(), reduction: 0 },
            peak,
            host: self.flights.host.peak(),
            number: first + peak.instruction,
            alive: Vec::new(),
            levels: trail.levels,
        };
        Measured { actor, trail: trail.classes, rows: trail.rows }
    }

    /// Parameters held here that a gradient trains; only the owned ones if asked.
    fn trained(&self, owned: bool) -> Vec<usize> {
        let parameters = self.brief.graph.parameters();
        let held = self.holdings.parameters.iter();
        let wanted = held.filter(|(index, holding)| {
            parameters[**index].spec.rule != Rule::Balance && (!owned || holding.owned.is_some())
        });
        wanted.map(|(index, _)| *index).collect()
    }

    /// Takes a sum from the holder before, or the whole one from the last.
    pub(crate) fn collect(&mut self, parameter: usize, sum: Vec<f32>, is_whole: bool) {
        if is_whole {
            return self.join(parameter, sum);
        }
        self.phase.partial.insert(parameter, sum);
        if self.phase.is_open {
            self.pass_on(parameter);
        }
    }

    /// Adds the own lanes to the sum of the holders before, once both are there, and sends it on.
    ///
    /// Holders stand in the order of their lanes, so all lanes are added from the first to the
    /// last, wherever they are computed.
    fn pass_on(&mut self, parameter: usize) {
        let brief = self.brief.clone();
        let share = &brief.shares[parameter];
        let at = share.holders.iter().position(|holder| *holder == self.me);
        let at = at.expect("asked for what is held");
        let before = self.phase.partial.remove(&parameter);
        if at > 0 && before.is_none() {
            return;
        }
        let sum = added(before, self.holdings.take_lanes(parameter));
        match share.holders.get(at + 1) {
            Some(next) => {
                let message = Message::Gradient { parameter, sum, is_whole: false };
                self.post().send(*next, message);
            }
            None if share.owner == self.me => self.join(parameter, sum),
            None => {
                let message = Message::Gradient { parameter, sum, is_whole: true };
                self.post().send(share.owner, message);
            }
        }
    }

    /// Keeps the whole gradient of a parameter owned here for the update.
    fn join(&mut self, parameter: usize, joined: Vec<f32>) {
        let squares = kernels::reduce::sum_of_squares(&joined);
        let hash = self.brief.audit.then(|| hash(&joined));
        self.phase.reports.push(Joined { parameter, squares, hash });
        self.phase.joined.insert(parameter, joined);
        if self.phase.is_open {
            self.report_joined();
        }
    }

    /// Reports once all gradients of owned parameters are joined, which includes the own lanes.
    fn report_joined(&mut self) {
        if self.phase.reports.len() == self.trained(true).len() {
            let gradients = std::mem::take(&mut self.phase.reports);
            self.note_part(Part::Reduce);
            self.post().report(Report::Joined { from: self.me, gradients });
        }
    }

    /// Updates everything owned here and sends the new values to the other holders.
    pub(crate) fn update(&mut self, verdict: &Verdict) {
        self.write_board(Doing::Working("updating weights".into()));
        if let Some(recorder) = &mut self.recorder {
            recorder.begin_part();
        }
        let mut hashes = Vec::new();
        let owned = self.holdings.parameters.iter().filter(|(_, h)| h.owned.is_some());
        for parameter in owned.map(|(index, _)| *index).collect::<Vec<_>>() {
            let gradient = self.phase.joined.remove(&parameter);
            self.update_one(parameter, gradient, verdict);
            let holding = &self.holdings.parameters[&parameter];
            if let (true, Some(owned)) = (self.brief.audit, &holding.owned) {
                hashes.push((parameter, hash(&owned.master)));
            }
            for holder in &self.brief.shares[parameter].holders {
                if *holder != self.me {
                    let value = holding.value.clone();
                    self.post().send(*holder, Message::Weight { parameter, value });
                }
            }
        }
        self.phase.updated = Some(hashes);
        self.note_part(Part::Update);
        self.write_board(Doing::Waiting("new weights from their owners".into()));
        self.report_updated();
    }

    fn update_one(&mut self, parameter: usize, gradient: Option<Vec<f32>>, verdict: &Verdict) {
        let brief = self.brief.clone();
        let about = &brief.graph.parameters()[parameter];
        let format = brief.format(parameter);
        let holding = self.holdings.parameters.get_mut(&parameter).expect("owned is held");
        let owned = holding.owned.as_mut().expect("only owners update");
        match gradient {
            None => {
                let rate = brief.optimizer.balance_rate();
                ops::optim::balance(rate, &verdict.loads[about.node], &mut owned.master);
            }
            Some(mut gradient) => {
                if !matches!(owned.state, State::Muon { .. }) {
                    gradient.iter_mut().for_each(|g| *g *= verdict.scale);
                }
                brief.optimizer.update(
                    about.spec.rule,
                    &about.spec.shape,
                    brief.dtype,
                    verdict.lr,
                    &gradient,
                    &mut owned.master,
                    &mut owned.state,
                );
                owned.gradient = brief.audit.then_some(gradient);
            }
        }
        clip_heads(&brief, parameter, verdict, &mut owned.master);
        holding.value = Tensor::nearest(&about.spec.shape, &owned.master, format);
    }

    /// Puts a new value from its owner in place.
    pub(crate) fn install(&mut self, parameter: usize, value: Tensor) {
        let holding = self.holdings.parameters.get_mut(&parameter);
        holding.expect("owners know the holders").value = value;
        self.phase.installed += 1;
        self.report_updated();
    }

    fn report_updated(&mut self) {
        let foreign = self.holdings.parameters.values().filter(|h| h.owned.is_none()).count();
        if self.phase.installed < foreign {
            return;
        }
        if let Some(parameters) = self.phase.updated.take() {
            let received = std::mem::take(&mut self.phase).received;
            self.write_board(Doing::Resting);
            self.note_part(Part::Gather);
            let notes = self.recorder.take().map(Recorder::finish);
            let from = self.me;
            self.post().report(Report::Updated { from, parameters, received, notes });
        }
    }

    fn note_part(&mut self, part: Part) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end_part(part);
        }
    }

    /// Sends copies of everything owned here to the conductor.
    pub(crate) fn snapshot(&self) {
        let mut tensors = Vec::new();
        for (index, holding) in &self.holdings.parameters {
            let Some(owned) = &holding.owned else { continue };
            let about = &self.brief.graph.parameters()[*index];
            let master = Tensor::from_f32(&about.spec.shape, owned.master.clone());
            tensors.push((about.name.clone(), master));
            for (which, buffer) in owned.state.buffers() {
                let name = format!("optimizer.{which}.{}", about.name);
                tensors.push((name, Tensor::from_f32(&[buffer.len()], buffer.to_vec())));
            }
            if let Some(gradient) = &owned.gradient {
                let name = format!("gradient.{}", about.name);
                tensors.push((name, Tensor::from_f32(&about.spec.shape, gradient.clone())));
            }
        }
        self.post().report(Report::Snapshot { from: self.me, tensors });
    }
}

/// QK-Clip on the parameters that make queries and keys; K2 report, algorithm 1.
fn clip_heads(brief: &crate::brief::Brief, parameter: usize, verdict: &Verdict, w: &mut [f32]) {
    let Some(tau) = brief.optimizer.qk_clip() else { return };
    for (clip, logits) in brief.graph.clips().iter().zip(&verdict.max_logits) {
        let Op::MlaAttention(attention) = &brief.graph.node(clip.attention).op else { continue };
        for (head, logit) in logits.iter().enumerate() {
            let Some(gamma) = ops::optim::qk_clip(*logit, tau) else { continue };
            if clip.query == parameter {
                gamma.clip_query(attention, head, w);
            } else if clip.keys == parameter {
                gamma.clip_key(attention, head, w);
            }
        }
    }
}

/// Adds lanes to a sum, from the first to the last.
fn added(before: Option<Vec<f32>>, lanes: Vec<Vec<f32>>) -> Vec<f32> {
    let mut lanes = before.into_iter().chain(lanes);
    let mut sum = lanes.next().unwrap_or_default();
    for lane in lanes {
        sum.iter_mut().zip(lane).for_each(|(sum, part)| *sum += part);
    }
    sum
}

fn hash(values: &[f32]) -> Hash {
    *blake3::hash(bytemuck::cast_slice(values)).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_added_from_the_first_to_the_last_however_they_are_spread() {
        let lanes = [1.0_f32, 1e8, -1e8, 1.0].map(|lane| vec![lane]);
        let whole = added(None, lanes.to_vec());
        assert_eq!(whole, [((1.0_f32 + 1e8) + -1e8) + 1.0]);
        for cut in 1..4 {
            let first = added(None, lanes[..cut].to_vec());
            assert_eq!(added(Some(first), lanes[cut..].to_vec()), whole);
        }
    }
}
