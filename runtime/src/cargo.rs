//! Packing, sending, receiving and unpacking the cargo of channels.
//!
//! Rows are sorted by expert, so what goes to one expert group is a slice of them and shares
//! their memory; what comes back is joined in the order of the groups.

use std::ops::Range;

use graphs::plan::{Cargo, ChannelId, Side, Visit};
use ops::{Kind, Tensor};

use crate::{
    address::Address,
    flight::{Port, concatenate},
    message::Message,
    worker::Worker,
};

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
                for (source, tensors) in pieces.into_iter().enumerate() {
                    self.unpack_on_group(cargo, microbatch, source, tensors);
                }
            }
        }
    }

    fn unpack_on_stage(&mut self, cargo: Cargo, microbatch: usize, pieces: Vec<Vec<Tensor>>) {
        let joined = |index: usize| {
            concatenate(&pieces.iter().map(|p| p[index].clone()).collect::<Vec<_>>())
        };
        let rank = self.me.rank;
        match cargo {
            Cargo::Activations { chunk } => {
                let port = self.boundary(chunk);
                self.flight((chunk + 1, 0, microbatch, rank)).put(port, joined(0));
            }
            Cargo::Gradients { chunk } => {
                let port = self.boundary(chunk - 1);
                self.flight((chunk - 1, 0, microbatch, rank)).add_gradient(port, joined(0));
            }
            Cargo::Combine { chunk, visit } => {
                let ports = self.visit(chunk, visit).outputs.clone();
                for (index, port) in ports.into_iter().enumerate() {
                    self.flight((chunk, 0, microbatch, rank)).put(port, joined(index));
                }
            }
            Cargo::DispatchGradients { chunk, visit } => {
                let ports = self.graded_inputs(chunk, visit);
                for (index, port) in ports.into_iter().enumerate() {
                    self.flight((chunk, 0, microbatch, rank)).add_gradient(port, joined(index));
                }
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
        match cargo {
            Cargo::Dispatch { chunk, visit } => {
                let ports = self.visit(chunk, visit).inputs.clone();
                let flight = self.flight((chunk, visit, microbatch, source));
                ports.into_iter().zip(tensors).for_each(|(port, tensor)| flight.put(port, tensor));
            }
            Cargo::CombineGradients { chunk, visit } => {
                let ports = self.visit(chunk, visit).outputs.clone();
                let flight = self.flight((chunk, visit, microbatch, source));
                for (port, tensor) in ports.into_iter().zip(tensors) {
                    flight.add_gradient(port, tensor);
                }
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
            let message = Message::Cargo { channel, microbatch, peer: rank, tensors };
            self.post().send(self.peer(channel, peer, false), message);
        }
        self.sweep(cargo, microbatch);
    }

    /// Tensors for one peer; gradients that go to several are cut from the whole each time.
    fn pack_on_stage(&mut self, cargo: Cargo, microbatch: usize, peer: usize) -> Vec<Tensor> {
        let rank = self.me.rank;
        match cargo {
            Cargo::Activations { chunk } => {
                let port = self.boundary(chunk);
                vec![self.flight((chunk, 0, microbatch, rank)).value(port).clone()]
            }
            Cargo::Gradients { chunk } => {
                let port = self.boundary(chunk - 1);
                vec![self.flight((chunk, 0, microbatch, rank)).take_gradient(port)]
            }
            Cargo::Dispatch { chunk, visit } => self.pack_rows(chunk, visit, microbatch, peer),
            Cargo::CombineGradients { chunk, visit } => {
                let splits = self.splits[&(chunk, visit, microbatch, rank)].clone();
                let ports = self.visit(chunk, visit).outputs.clone();
                let flight = self.flight((chunk, 0, microbatch, rank));
                let cut = |port: Port| flight.gradient(port).rows(splits[peer]..splits[peer + 1]);
                ports.into_iter().map(cut).collect()
            }
            Cargo::Combine { .. } | Cargo::DispatchGradients { .. } => {
                unreachable!("the plan sends these from the experts")
            }
        }
    }

    /// The rows and counts of one group; the first peer computes where the groups begin.
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
        let flight = self.flight((chunk, 0, microbatch, rank));
        let rows = flight.value(ports[0]).clone();
        let counts = flight.value(ports[1]).clone();
        let key = (chunk, visit, microbatch, rank);
        let splits = self.splits.entry(key).or_insert_with(|| group_starts(counts.i32(), local));
        let range = splits[peer]..splits[peer + 1];
        vec![rows.rows(range), counts.rows(peer * local..(peer + 1) * local)]
    }

    fn pack_on_group(&mut self, cargo: Cargo, microbatch: usize, peer: usize) -> Vec<Tensor> {
        match cargo {
            Cargo::Combine { chunk, visit } => {
                let ports = self.visit(chunk, visit).outputs.clone();
                let flight = self.flight((chunk, visit, microbatch, peer));
                ports.into_iter().map(|port| flight.value(port).clone()).collect()
            }
            Cargo::DispatchGradients { chunk, visit } => {
                let ports = self.graded_inputs(chunk, visit);
                let flight = self.flight((chunk, visit, microbatch, peer));
                ports.into_iter().map(|port| flight.take_gradient(port)).collect()
            }
            _ => unreachable!("the plan sends these from the stages"),
        }
    }

    /// Drops what has just left and is not needed here any more.
    fn sweep(&mut self, cargo: Cargo, microbatch: usize) {
        let rank = self.me.rank;
        match cargo {
            Cargo::Activations { chunk } => {
                self.flight((chunk, 0, microbatch, rank)).clear_values();
            }
            Cargo::Gradients { chunk } => {
                let key = (chunk, 0, microbatch, rank);
                let flight = self.flights.remove(&key).unwrap_or_default();
                self.keep_if_alive(key, flight);
            }
            Cargo::CombineGradients { chunk, visit } => {
                let ports = self.visit(chunk, visit).outputs.clone();
                let flight = self.flight((chunk, 0, microbatch, rank));
                ports.into_iter().for_each(|port| drop(flight.take_gradient(port)));
            }
            Cargo::Combine { chunk, visit } => {
                for source in self.sources() {
                    self.flight((chunk, visit, microbatch, source)).clear_values();
                }
            }
            Cargo::Dispatch { .. } | Cargo::DispatchGradients { .. } => {}
        }
    }

    fn visit(&self, chunk: usize, visit: usize) -> &Visit {
        &self.brief.plan.chunks[chunk].visits[visit]
    }

    /// Inputs of a visit that have a gradient: rows, not counts.
    fn graded_inputs(&self, chunk: usize, visit: usize) -> Vec<Port> {
        let spec = |(node, port): &Port| self.brief.graph.node(*node).outputs[*port].kind;
        let inputs = self.visit(chunk, visit).inputs.iter();
        inputs.filter(|port| spec(port) != Kind::Index).copied().collect()
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
