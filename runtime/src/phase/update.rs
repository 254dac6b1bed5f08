//! The update of the own slices, and the way of new values to all holders.
//!
//! AdamW moves rows where they are. Muon adds the gradient to the momentum there, sends the
//! direction to the owner of the matrix, which runs Newton-Schulz once all slices are there, and
//! moves the rows by what comes back; Moonlight, arXiv:2502.16982, algorithm 1, with one gathering
//! rank where it has all. Under `Owners` the one slice is the matrix, and nothing is on its way.

use std::{sync::Arc, time::Duration};

use graphs::model::Parameter;
use ops::{
    Floats, Op, Place, Tensor,
    optim::{Rows, State},
};

use crate::{
    board::Doing,
    brief::Brief,
    digest,
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
        let held = self.holdings.parameters.iter();
        let own: Vec<usize> =
            held.filter(|(_, it)| it.owned.is_some()).map(|(index, _)| *index).collect();
        self.phase.unmoved = own.len();
        self.phase.verdict = Some(verdict.clone());
        if own.is_empty() {
            self.note_part(Part::Update);
        }
        let brief = self.brief.clone();
        let rank = self.me.index(&brief.plan.mesh) / 2;
        let device = brief.pace.as_ref().map(|pace| pace.begin_updates(rank, self.me));
        for parameter in own {
            self.write_board(Doing::Working("updating weights".into()));
            self.begin_update(parameter, &verdict);
        }
        if let Some(device) = device {
            device.end();
        }
        if self.phase.verdict.is_some() {
            self.write_board(Doing::Waiting("updates and new weights from other holders".into()));
            self.report_updated();
        }
    }

    /// Moves the own slice of a parameter, or sends off what Newton-Schulz needs of it.
    fn begin_update(&mut self, parameter: usize, verdict: &Verdict) {
        let brief = self.brief.clone();
        self.cross_bus(parameter, brief.place(self.me));
        let about = &brief.graph.parameters()[parameter];
        let gradient = self.phase.joined.remove(&parameter);
        let owned = self.holdings.owned(parameter);
        let muon = brief.optimizer.muon(about.spec.rule, &about.spec.shape);
        match (gradient, muon, &mut owned.state) {
            (None, ..) => {
                let rate = brief.optimizer.balance_rate();
                let mut bias = owned.master.to_host();
                ops::optim::balance(rate, &verdict.loads[about.node], &mut bias);
                owned.master = Floats::at(&owned.master.place(), bias);
            }
            (Some(gradient), Some(muon), State::Muon { momentum }) => {
                let direction = muon.direction(&gradient, momentum);
                owned.gradient = brief.audit.then_some(gradient);
                return self.send_direction(parameter, direction);
            }
            (Some(mut gradient), _, state) => {
                gradient.scale(0..gradient.len(), verdict.scale);
                brief.optimizer.update(
                    about.spec.rule,
                    &slice_shape(about, owned.rows.len()),
                    brief.dtype,
                    verdict.lr,
                    &gradient,
                    &mut owned.master,
                    state,
                );
                owned.gradient = brief.audit.then_some(gradient);
            }
        }
        self.publish(parameter, verdict);
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

    /// Takes a slice of the direction of a matrix that this actor runs Newton-Schulz on.
    ///
    /// Others may have heard the verdict earlier; what they send does not depend on it.
    pub(crate) fn gather_direction(&mut self, parameter: usize, from: usize, direction: Floats) {
        let parts = self.phase.directions.entry(parameter).or_default();
        parts.insert(from, direction);
        if parts.len() == self.brief.shares[parameter].slices().count() {
            let parts = self.phase.directions.remove(&parameter).unwrap_or_default();
            self.orthogonalise(parameter, &Floats::joined(parts.into_values()));
        }
    }

    /// Runs Newton-Schulz on a whole direction and hands every holder its rows of the result.
    fn orthogonalise(&mut self, parameter: usize, direction: &Floats) {
        let brief = self.brief.clone();
        let (share, about) = (&brief.shares[parameter], &brief.graph.parameters()[parameter]);
        let Some(muon) = brief.optimizer.muon(about.spec.rule, &about.spec.shape) else { return };
        self.write_board(Doing::Working(format!("Newton-Schulz on `{}`", about.name)));
        let orthogonal = muon.orthogonal(&about.spec.shape, brief.dtype, direction);
        self.phase.done.newton_schulz += 1;
        self.write_board(Doing::Waiting("directions, updates and new weights of others".into()));
        let own = self.holdings.position(parameter);
        for (holder, rows) in share.slices().filter(|(holder, _)| *holder != own) {
            let rows = orthogonal.rows(rows);
            self.pass(share.holders[holder], Message::Update { parameter, rows });
        }
        let rows = share.slice(own);
        if !rows.is_empty() {
            self.turn(parameter, &orthogonal.rows(rows));
        }
    }

    /// Moves the own slice of a matrix by its rows of the result of Newton-Schulz.
    pub(crate) fn turn(&mut self, parameter: usize, rows: &Tensor) {
        let brief = self.brief.clone();
        let about = &brief.graph.parameters()[parameter];
        let verdict = self.phase.verdict.clone().expect("the direction was sent after it");
        let owned = self.holdings.owned(parameter);
        if let Some(muon) = brief.optimizer.muon(about.spec.rule, &about.spec.shape) {
            muon.turn(&about.spec.shape, verdict.lr, rows, &mut owned.master);
        }
        self.publish(parameter, &verdict);
    }

    /// Clips the heads of an updated slice and sends its new values to all holders.
    fn publish(&mut self, parameter: usize, verdict: &Verdict) {
        let brief = self.brief.clone();
        let about = &brief.graph.parameters()[parameter];
        let (columns, format) = (about.columns(), brief.format(parameter));
        let owned = self.holdings.owned(parameter);
        let first = owned.rows.start;
        clip_heads(&brief, parameter, verdict, Rows { first, columns, values: &mut owned.master });
        let shape = slice_shape(about, owned.rows.len());
        let value = owned.master.nearest(&shape, format);
        if brief.audit {
            let hash = digest::of_rows(first, columns, &owned.master.to_host());
            self.phase.done.parameters.push((parameter, hash));
        }
        self.cross_bus(parameter, &Place::Host);
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

/// Shape of so many rows of a parameter.
fn slice_shape(parameter: &Parameter, rows: usize) -> Vec<usize> {
    let mut shape = parameter.spec.shape.clone();
    shape[0] = rows;
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
