//! Packing, sending, receiving and unpacking the cargo of channels.
//!
//! Rows are sorted by expert, so what goes to one expert group is a slice of them and shares
//! their memory; what comes back is joined in the order of the groups.

use std::ops::Range;

use graphs::{
    address::Address,
    flight::graded_inputs,
    model::Port,
    plan::{Cargo, ChannelId, Side, Visit},
};
use ops::{DType, Tensor};

use crate::{flights::FlightKey, message::Message, worker::Worker};

impl Worker {
    /// Ranks at the other end of a channel.
    pub(crate) fn peers(&self, channel: ChannelId) -> Range<usize> {
        let fans_out = self.brief.plan.channels[channel].cargo.fans_out();
        if fans_out { 0..self.brief.plan.mesh.ep } else { self.me.rank..self.me.rank + 1 }
    }

    pub(crate) fn peer(&self, channel: ChannelId, rank: usize, sender: bool) -> Address {
        let channel = &self.brief.plan.channels[channel];
        let (stage, side) = if sender { channel.from } else { channel.to };
        Address { replica: self.me.replica, stage, rank, side }
    }

    pub(crate) fn take_in(&mut self, channel: ChannelId, microbatch: usize) {
        let cargo = self.brief.plan.channels[channel].cargo;
        let mut pieces = Vec::new();
        for peer in self.peers(channel) {
            pieces.push(self.mailbox.take(channel, microbatch, peer));
            let sender = self.peer(channel, peer, true);
            self.post().send(sender, Message::Credit { channel, peer: self.me.rank });
        }
        match self.me.side {
            Side::Stage => self.unpack_on_stage(cargo, microbatch, pieces),
            Side::Experts => {
                self.note_rows(cargo, microbatch, &pieces);
                for (source, tensors) in pieces.into_iter().enumerate() {
                    self.unpack_on_group(cargo, microbatch, source, tensors);
                }
            }
        }
    }

    /// Writes down how many rows came from each source, if the cluster audits.
    fn note_rows(&mut self, cargo: Cargo, microbatch: usize, pieces: &[Vec<Tensor>]) {
        if let (true, Cargo::Dispatch { chunk, visit }) = (self.brief.audit, cargo) {
            let rows = pieces.iter().map(|tensors| tensors[0].shape()[0] as u64).collect();
            self.trail.rows.push(((chunk, visit, microbatch), rows));
        }
    }

    fn unpack_on_stage(&mut self, cargo: Cargo, microbatch: usize, pieces: Vec<Vec<Tensor>>) {
        let joined = |index: usize| {
            Tensor::concatenated(&pieces.iter().map(|p| p[index].clone()).collect::<Vec<_>>())
        };
        let (rank, graph) = (self.me.rank, &self.brief.graph);
        match cargo {
            Cargo::Activations { chunk } => {
                let (key, port) = ((chunk + 1, 0, microbatch, rank), self.boundary(chunk));
                let keeping = &self.keepings[&(chunk + 1, 0)];
                self.flights.edit(key, |flight| flight.put(graph, keeping, port, joined(0)));
            }
            Cargo::Gradients { chunk } => {
                let (key, port) = ((chunk - 1, 0, microbatch, rank), self.boundary(chunk - 1));
                self.flights.edit(key, |flight| flight.add_gradient(port, joined(0)));
            }
            Cargo::Combine { chunk, visit } => {
                let ports = &self.brief.plan.chunks[chunk].visits[visit].outputs;
                let keeping = &self.keepings[&(chunk, 0)];
                self.flights.edit((chunk, 0, microbatch, rank), |flight| {
                    for (index, port) in ports.iter().enumerate() {
                        flight.put(graph, keeping, *port, joined(index));
                    }
                });
            }
            Cargo::DispatchGradients { chunk, visit } => {
                let ports = graded_inputs(graph, self.visit(chunk, visit));
                self.flights.edit((chunk, 0, microbatch, rank), |flight| {
                    let ports = ports.into_iter().enumerate();
                    ports.for_each(|(index, port)| flight.add_gradient(port, joined(index)));
                });
                self.splits.remove(&(chunk, visit, microbatch, rank));
            }
            Cargo::Dispatch { .. } | Cargo::CombineGradients { .. } => {
                unreachable!("the plan sends these to the experts")
            }
        }
    }

    fn unpack_on_group(
        &mut self,
        cargo: Cargo,
        microbatch: usize,
        source: usize,
        tensors: Vec<Tensor>,
    ) {
        let (plan, graph) = (&self.brief.plan, &self.brief.graph);
        match cargo {
            Cargo::Dispatch { chunk, visit } => {
                let ports = plan.chunks[chunk].visits[visit].inputs.iter();
                let keeping = &self.keepings[&(chunk, visit)];
                self.flights.edit((chunk, visit, microbatch, source), |flight| {
                    let arrived = ports.zip(tensors);
                    arrived.for_each(|(port, tensor)| flight.put(graph, keeping, *port, tensor));
                });
            }
            Cargo::CombineGradients { chunk, visit } => {
                let ports = plan.chunks[chunk].visits[visit].outputs.iter();
                self.flights.edit((chunk, visit, microbatch, source), |flight| {
                    let arrived = ports.zip(tensors);
                    arrived.for_each(|(port, tensor)| flight.add_gradient(*port, tensor));
                });
            }
            _ => unreachable!("the plan sends these to the stages"),
        }
    }

    pub(crate) fn send_out(&mut self, channel: ChannelId, microbatch: usize) {
        let cargo = self.brief.plan.channels[channel].cargo;
        for peer in self.peers(channel) {
            let tensors = match self.me.side {
                Side::Stage => self.pack_on_stage(cargo, microbatch, peer),
                Side::Experts => self.pack_on_group(cargo, microbatch, peer),
            };
            self.mailbox.spend(channel, peer);
            let rank = self.me.rank;
            let message =
                Message::Cargo { channel, microbatch, peer: rank, tensors, travelled: None };
            self.post().carry(self.me, self.peer(channel, peer, false), message);
        }
        self.sweep(cargo, microbatch);
    }

    /// Tensors for one peer; gradients that go to several are cut from the whole each time.
    fn pack_on_stage(&mut self, cargo: Cargo, microbatch: usize, peer: usize) -> Vec<Tensor> {
        let rank = self.me.rank;
        match cargo {
            Cargo::Activations { chunk } => {
                let port = self.boundary(chunk);
                vec![self.flights.get((chunk, 0, microbatch, rank)).value(port).clone()]
            }
            Cargo::Gradients { chunk } => {
                let port = self.boundary(chunk - 1);
                let key = (chunk, 0, microbatch, rank);
                vec![self.flights.edit(key, |flight| flight.take_gradient(port))]
            }
            Cargo::Dispatch { chunk, visit } => self.pack_rows(chunk, visit, microbatch, peer),
            Cargo::CombineGradients { chunk, visit } => {
                let splits = &self.splits[&(chunk, visit, microbatch, rank)];
                let flight = self.flights.get((chunk, 0, microbatch, rank));
                let rows = splits[peer]..splits[peer + 1];
                let cut = |port: &Port| flight.gradient(*port).rows(rows.clone());
                self.visit(chunk, visit).outputs.iter().map(cut).collect()
            }
            Cargo::Combine { .. } | Cargo::DispatchGradients { .. } => {
                unreachable!("the plan sends these from the experts")
            }
        }
    }

    /// The rows of one group, its counts and its shares; the first peer computes where the groups
    /// begin.
    fn pack_rows(
        &mut self,
        chunk: usize,
        visit: usize,
        microbatch: usize,
        peer: usize,
    ) -> Vec<Tensor> {
        let (rank, ep) = (self.me.rank, self.brief.plan.mesh.ep);
        let ports = self.visit(chunk, visit).inputs.clone();
        let local = self.visit(chunk, visit).experts / ep;
        let flight = self.flights.get((chunk, 0, microbatch, rank));
        let tensors = ports.iter().map(|port| flight.value(*port).clone()).collect::<Vec<_>>();
        let key = (chunk, visit, microbatch, rank);
        let counts = tensors[1].i32();
        let splits = self.splits.entry(key).or_insert_with(|| group_starts(counts, local));
        let cut = |tensor: &Tensor| match tensor.dtype() {
            DType::I32 => tensor.rows(peer * local..(peer + 1) * local),
            DType::F32 | DType::Bf16 => tensor.rows(splits[peer]..splits[peer + 1]),
        };
        tensors.iter().map(cut).collect()
    }

    fn pack_on_group(&mut self, cargo: Cargo, microbatch: usize, peer: usize) -> Vec<Tensor> {
        match cargo {
            Cargo::Combine { chunk, visit } => {
                let flight = self.flights.get((chunk, visit, microbatch, peer));
                let ports = self.visit(chunk, visit).outputs.iter();
                ports.map(|port| flight.value(*port).clone()).collect()
            }
            Cargo::DispatchGradients { chunk, visit } => {
                let ports = graded_inputs(&self.brief.graph, self.visit(chunk, visit));
                self.flights.edit((chunk, visit, microbatch, peer), |flight| {
                    ports.into_iter().map(|port| flight.take_gradient(port)).collect()
                })
            }
            _ => unreachable!("the plan sends these from the stages"),
        }
    }

    /// Notes that what has just left has been read once more here; gradients are dropped.
    fn sweep(&mut self, cargo: Cargo, microbatch: usize) {
        let rank = self.me.rank;
        match cargo {
            Cargo::Activations { chunk } => {
                self.note_sent((chunk, 0, microbatch, rank), &[self.boundary(chunk)]);
            }
            Cargo::Dispatch { chunk, visit } => {
                let ports = self.visit(chunk, visit).inputs.clone();
                self.note_sent((chunk, 0, microbatch, rank), &ports);
            }
            Cargo::Combine { chunk, visit } => {
                let ports = self.visit(chunk, visit).outputs.clone();
                for source in self.sources() {
                    self.note_sent((chunk, visit, microbatch, source), &ports);
                }
            }
            Cargo::CombineGradients { chunk, visit } => {
                let ports = &self.brief.plan.chunks[chunk].visits[visit].outputs;
                self.flights.edit((chunk, 0, microbatch, rank), |flight| {
                    ports.iter().for_each(|port| drop(flight.take_gradient(*port)));
                });
            }
            Cargo::Gradients { .. } | Cargo::DispatchGradients { .. } => {}
        }
    }

    fn note_sent(&mut self, key: FlightKey, ports: &[Port]) {
        let (graph, keeping) = (&self.brief.graph, &self.keepings[&(key.0, key.1)]);
        self.flights.edit(key, |flight| {
            ports.iter().for_each(|port| flight.read(graph, keeping, *port));
        });
    }

    fn visit(&self, chunk: usize, visit: usize) -> &Visit {
        &self.brief.plan.chunks[chunk].visits[visit]
    }
}

/// First row of each group and the end: sums over the experts of a group.
fn group_starts(counts_e: &[i32], local: usize) -> Vec<usize> {
    let mut starts = vec![0];
    for group in counts_e.chunks(local) {
        let rows: i32 = group.iter().sum();
        starts.push(starts[starts.len() - 1] + rows as usize);
    }
    starts
}
