//! The update of the own slices, and the way of new values to all holders.
//!
//! AdamW moves rows where they are. Muon adds the gradient to the momentum there, sends the
//! direction to the owner of the matrix, which runs Newton-Schulz once all slices are there, and
//! moves the rows by what comes back; Moonlight, arXiv:2502.16982, algorithm 1, with one gathering
//! rank where it has all. Under `Owners` the one slice is the matrix, and nothing is on its way.
//! All of this goes batch by batch (`batches`).

use std::{ops::Range, sync::Arc, time::Duration};

use graphs::model::Parameter;
use ops::{
    Floats, Op, Place, Rule, Tensor,
    optim::{Moving, MuonClip, Rows, State},
};

use crate::{
    board::Doing,
    brief::Brief,
    digest,
    init::Owned,
    message::Message,
    report::Report,
    trace::{Part, Recorder},
    verdict::Verdict,
    worker::Worker,
};

impl Worker {
    /// Updates the own slices, as far as that goes without others.
    pub(crate) fn update(&mut self, verdict: Arc<Verdict>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.begin_part();
        }
        let own = self.batches.own.clone();
        self.phase.unmoved = own.iter().map(Vec::len).sum();
        self.phase.verdict = Some(verdict.clone());
        if own.is_empty() {
            self.note_part(Part::Update);
        }
        let brief = self.brief.clone();
        let rank = self.me.index(&brief.plan.mesh) / 2;
        let device = brief.pace.as_ref().map(|pace| pace.begin_updates(rank, self.me));
        for batch in own {
            self.write_board(Doing::Working("updating weights".into()));
            self.begin_updates(&batch, &verdict);
        }
        if let Some(device) = device {
            device.end();
        }
        if self.phase.verdict.is_some() {
            self.write_board(Doing::Waiting("updates and new weights from other holders".into()));
            self.report_updated();
        }
    }

    /// Moves the own slices of a batch, or sends off what Newton-Schulz needs of them.
    fn begin_updates(&mut self, batch: &[usize], verdict: &Verdict) {
        let brief = self.brief.clone();
        batch.iter().for_each(|parameter| self.cross_bus(*parameter, brief.place(self.me)));
        let spec = &brief.graph.parameters()[batch[0]].spec;
        match (spec.rule, brief.optimizer.muon(spec.rule, &spec.shape)) {
            (Rule::Balance, _) => batch.iter().for_each(|bias| self.balance(*bias, verdict)),
            (_, Some(muon)) => return self.begin_directions(batch, muon),
            (_, None) => self.step_adamw(batch, verdict),
        }
        self.publish(batch, verdict);
    }

    fn balance(&mut self, parameter: usize, verdict: &Verdict) {
        let node = self.brief.graph.parameters()[parameter].node;
        let rate = self.brief.optimizer.balance_rate();
        let owned = self.holdings.owned(parameter);
        let mut bias = owned.master.to_host();
        ops::optim::balance(rate, &verdict.loads[node], &mut bias);
        owned.master = Floats::at(&owned.master.place(), bias);
    }

    fn step_adamw(&mut self, batch: &[usize], verdict: &Verdict) {
        let (brief, mut gradients) = (self.brief.clone(), self.take_joined(batch));
        let mut scale = verdict.scale;
        if brief.audit {
            // What an audit keeps is clipped; otherwise the update does that on its way.
            gradients.iter_mut().for_each(|it| it.scale(0..it.len(), scale));
            scale = 1.0;
        }
        let owned = self.holdings.all_owned(batch).into_iter();
        let moving = owned.zip(&gradients).map(|(owned, grad)| {
            let Owned { master, state, .. } = owned;
            Moving { grad, master, state }
        });
        brief.optimizer.step_adamw(verdict.lr, scale, moving.collect());
        self.keep_gradients(batch, gradients);
    }

    /// Adds the gradients of a batch to their momenta, and sends the directions off.
    fn begin_directions(&mut self, batch: &[usize], muon: &MuonClip) {
        let gradients = self.take_joined(batch);
        let owned = self.holdings.all_owned(batch).into_iter();
        let pairs = owned.zip(&gradients).map(|(owned, gradient)| match &mut owned.state {
            State::Muon { momentum } => (gradient, momentum),
            State::AdamW { .. } | State::None => unreachable!("Muon's matrices have a momentum"),
        });
        let directions = muon.directions(pairs.collect());
        self.keep_gradients(batch, gradients);
        for (parameter, direction) in batch.iter().zip(directions) {
            self.send_direction(*parameter, direction);
        }
    }

    /// The joined gradients of a batch.
    fn take_joined(&mut self, batch: &[usize]) -> Vec<Floats> {
        let joined = &mut self.phase.joined;
        let take = |parameter| joined.remove(parameter).expect("joined before the verdict");
        batch.iter().map(take).collect()
    }

    fn keep_gradients(&mut self, batch: &[usize], gradients: Vec<Floats>) {
        let is_kept = self.brief.audit;
        for (owned, gradient) in self.holdings.all_owned(batch).into_iter().zip(gradients) {
            owned.gradient = is_kept.then_some(gradient);
        }
    }

    /// Brings the master and the state of the own slice to a place, if they live on the host: to
    /// the device before an update, and back after it. An emulated bus takes its time.
    fn cross_bus(&mut self, parameter: usize, to: &Place) {
        let bus = self.brief.bus;
        let owned = self.holdings.owned(parameter);
        if !owned.on_host {
            return;
        }
        if let Some(speed) = bus {
            let (masters, states) = owned.bytes();
            std::thread::sleep(Duration::from_secs_f64((masters + states) as f64 / speed));
        }
        owned.bring(to);
    }

    fn send_direction(&mut self, parameter: usize, direction: Floats) {
        let from = self.holdings.position(parameter);
        let owner = self.brief.shares[parameter].owner;
        if owner == self.me {
            return self.gather_direction(parameter, from, direction);
        }
        self.pass(owner, Message::Momentum { parameter, from, direction });
    }

    /// Takes a slice of the direction of a matrix that this actor runs Newton-Schulz on, which it
    /// does once all of the matrix's batch are there.
    ///
    /// Others may have heard the verdict earlier; what they send does not depend on it.
    pub(crate) fn gather_direction(&mut self, parameter: usize, from: usize, direction: Floats) {
        self.phase.directions.entry(parameter).or_default().insert(from, direction);
        let (gathered, shares) = (&self.phase.directions, &self.brief.shares);
        let is_whole = |matrix: &usize| {
            let parts = gathered.get(matrix).map_or(0, |parts| parts.len());
            parts == shares[*matrix].slices().count()
        };
        let batch = self.batches.with(parameter).to_vec();
        if batch.iter().all(is_whole) {
            let gathered = &mut self.phase.directions;
            let parts = batch.iter().map(|matrix| gathered.remove(matrix).unwrap_or_default());
            let directions = parts.map(|parts| Floats::joined(parts.into_values())).collect();
            self.orthogonalise(&batch, directions);
        }
    }

    /// Runs Newton-Schulz on the whole directions of a batch and hands every holder its rows of the
    /// results.
    fn orthogonalise(&mut self, batch: &[usize], directions: Vec<Floats>) {
        let brief = self.brief.clone();
        let about = &brief.graph.parameters()[batch[0]];
        let Some(muon) = brief.optimizer.muon(about.spec.rule, &about.spec.shape) else { return };
        let others = if batch.len() > 1 { " and its like" } else { "" };
        self.write_board(Doing::Working(format!("Newton-Schulz on `{}`{others}", about.name)));
        let whole: Vec<&Floats> = directions.iter().collect();
        let orthogonal = muon.orthogonal(&about.spec.shape, brief.dtype, &whole);
        drop(directions);
        self.phase.done.newton_schulz += batch.len();
        self.write_board(Doing::Waiting("directions, updates and new weights of others".into()));
        let mut own_rows = Vec::new();
        for (parameter, orthogonal) in batch.iter().zip(orthogonal) {
            let (own, share) = (self.holdings.position(*parameter), &brief.shares[*parameter]);
            for (holder, rows) in share.slices().filter(|(holder, _)| *holder != own) {
                let (parameter, rows) = (*parameter, orthogonal.rows(rows));
                self.pass(share.holders[holder], Message::Update { parameter, rows });
            }
            own_rows.push(orthogonal.rows(share.slice(own)));
        }
        // Slices of a batch have as many rows.
        if own_rows.iter().any(|rows| !rows.is_empty()) {
            self.turn(batch, &own_rows);
        }
    }

    /// Moves the own slices of matrices by their rows of the results of Newton-Schulz.
    pub(crate) fn turn(&mut self, batch: &[usize], rows: &[Tensor]) {
        let brief = self.brief.clone();
        let spec = &brief.graph.parameters()[batch[0]].spec;
        let verdict = self.phase.verdict.clone().expect("the directions were sent after it");
        let owned = self.holdings.all_owned(batch).into_iter();
        let pairs = rows.iter().zip(owned.map(|owned| &mut owned.master));
        if let Some(muon) = brief.optimizer.muon(spec.rule, &spec.shape) {
            muon.turn(&spec.shape, verdict.lr, pairs.collect());
        }
        self.publish(batch, &verdict);
    }

    /// Clips the heads of the updated slices of a batch and sends their new values to all holders.
    fn publish(&mut self, batch: &[usize], verdict: &Verdict) {
        let brief = self.brief.clone();
        let about = &brief.graph.parameters()[batch[0]];
        let (columns, format) = (about.columns(), brief.format(batch[0]));
        let mut all_owned = self.holdings.all_owned(batch);
        for (parameter, owned) in batch.iter().zip(&mut all_owned) {
            let rows = Rows { first: owned.rows.start, columns, values: &mut owned.master };
            clip_heads(&brief, *parameter, verdict, rows);
        }
        let shape = slice_shape(about, &all_owned[0].rows);
        let masters: Vec<&Floats> = all_owned.iter().map(|owned| &owned.master).collect();
        let values = Floats::nearest(&masters, &shape, format);
        if brief.audit {
            let hash = |owned: &&mut Owned| {
                digest::of_rows(owned.rows.start, columns, &owned.master.to_host())
            };
            let hashes = batch.iter().copied().zip(all_owned.iter().map(hash));
            self.phase.done.parameters.extend(hashes);
        }
        for (parameter, value) in batch.iter().zip(values) {
            self.cross_bus(*parameter, &Place::Host);
            self.send_value(*parameter, value);
        }
    }

    /// Sends the new value of an own slice to all holders of the parameter.
    fn send_value(&mut self, parameter: usize, value: Tensor) {
        let brief = self.brief.clone();
        let from = self.holdings.position(parameter);
        let me = self.me;
        for holder in brief.shares[parameter].holders.iter().filter(|it| **it != me) {
            let value = value.clone();
            self.pass(*holder, Message::Weight { parameter, from, value });
        }
        self.phase.unmoved -= 1;
        if self.phase.unmoved == 0 {
            self.note_part(Part::Update);
        }
        self.install(parameter, from, value);
    }

    /// Puts a new value in place once all slices of it are here.
    pub(crate) fn install(&mut self, parameter: usize, from: usize, value: Tensor) {
        let values = self.phase.values.entry(parameter).or_default();
        values.insert(from, value);
        if values.len() < self.brief.shares[parameter].slices().count() {
            return;
        }
        let values = self.phase.values.remove(&parameter).unwrap_or_default();
        let slices: Vec<Tensor> = values.into_values().collect();
        let holding = self.holdings.parameters.get_mut(&parameter);
        holding.expect("holders know each other").value = Tensor::concatenated(&slices);
        self.phase.installed += 1;
        self.report_updated();
    }

    /// Reports once every value is in place, which includes those that are updated here.
    fn report_updated(&mut self) {
        let is_heard = self.phase.verdict.is_some();
        if !is_heard || self.phase.installed < self.holdings.parameters.len() {
            return;
        }
        let done = Box::new(std::mem::take(&mut self.phase).done);
        self.write_board(Doing::Resting);
        self.note_part(Part::Gather);
        let notes = self.recorder.take().map(Recorder::finish);
        self.post().report(Report::Updated { from: self.me, done, notes });
    }
}

/// Shape of some rows of a parameter.
fn slice_shape(parameter: &Parameter, rows: &Range<usize>) -> Vec<usize> {
    let mut shape = parameter.spec.shape.clone();
    shape[0] = rows.len();
    shape
}

/// QK-Clip on the rows of the parameters that make queries and keys; K2 report, algorithm 1.
fn clip_heads(brief: &Brief, parameter: usize, verdict: &Verdict, mut rows: Rows<'_>) {
    let Some(tau) = brief.optimizer.qk_clip() else { return };
    for (clip, logits) in brief.graph.clips().iter().zip(&verdict.max_logits) {
        let Op::MlaAttention(attention) = &brief.graph.node(clip.attention).op else { continue };
        for (head, logit) in logits.iter().enumerate() {
            let Some(gamma) = ops::optim::qk_clip(*logit, tau) else { continue };
            if clip.query == parameter {
                gamma.clip_query(attention, head, &mut rows);
            } else if clip.keys == parameter {
                gamma.clip_key(attention, head, &mut rows);
            }
        }
    }
}
