//! The parameters one actor holds: values to compute with, gradient lanes, and its slices.

use std::{collections::BTreeMap, sync::Arc};

use graphs::{address::Address, memory::Fixed, model::NodeId};
use ops::{DType, Floats, Place, Rule, Tensor};

use crate::{
    brief::Brief,
    init::{Initial, Owned},
};

/// One parameter on one actor.
#[derive(Debug)]
pub struct Holding {
    /// Value in the format that forward and backward read.
    pub value: Tensor,
    /// Position of this actor among the holders.
    position: usize,
    /// Gradient sums, one for each lane this actor computes; empty between steps.
    lanes: Vec<Option<Floats>>,
    /// Whether gradients move it; a bias that counts move has empty sums.
    is_trained: bool,
    /// The slice that this actor updates; none if that is empty.
    pub owned: Option<Owned>,
}

/// All parameters of one actor.
#[derive(Debug)]
pub struct Holdings {
    /// By index among the parameters of the model.
    pub parameters: BTreeMap<usize, Holding>,
    /// Parameters of each node that are held here, in the order the operator takes them.
    by_node: BTreeMap<NodeId, Vec<usize>>,
    /// First lane this actor computes.
    pub first_lane: usize,
}

impl Holdings {
    /// Makes the holdings of an actor from initial values.
    pub fn new(brief: &Arc<Brief>, me: Address, initial: &Initial) -> Self {
        let lanes = me.lanes(&brief.plan.mesh, &brief.plan.batch);
        let (first_lane, lanes) = (lanes.start, lanes.len());
        let mut holdings =
            Holdings { parameters: BTreeMap::new(), by_node: BTreeMap::new(), first_lane };
        for (index, parameter) in brief.graph.parameters().iter().enumerate() {
            let share = &brief.shares[index];
            let Some(position) = share.position(me) else { continue };
            let master = initial.master(index);
            let value = Tensor::rounded(&parameter.spec.shape, master, brief.format(index));
            let value = value.at(brief.place(me));
            let rows = share.slice(position);
            let on_host = brief.hosted.contains(index, me);
            let home = if on_host { &Place::Host } else { brief.place(me) };
            let owned =
                (!rows.is_empty()).then(|| Owned { on_host, ..initial.owned(index, rows, home) });
            let is_trained = parameter.spec.rule != Rule::Balance;
            let lanes = vec![None; lanes];
            let holding = Holding { value, position, lanes, is_trained, owned };
            holdings.parameters.insert(index, holding);
            holdings.by_node.entry(parameter.node).or_default().push(index);
        }
        holdings
    }

    /// Position of this actor among the holders of a parameter.
    pub fn position(&self, parameter: usize) -> usize {
        self.parameters[&parameter].position
    }

    /// The slice of a parameter that this actor updates.
    pub fn owned(&mut self, parameter: usize) -> &mut Owned {
        let holding = self.parameters.get_mut(&parameter).expect("asked for what is held");
        holding.owned.as_mut().expect("asked for a slice that is not empty")
    }

    /// The slices of some parameters, in rising order, that this actor updates.
    pub fn all_owned(&mut self, parameters: &[usize]) -> Vec<&mut Owned> {
        let (Some(first), Some(last)) = (parameters.first(), parameters.last()) else {
            return Vec::new();
        };
        let between = self.parameters.range_mut(first..=last);
        let wanted = between.filter(|(index, _)| parameters.binary_search(index).is_ok());
        let owned = wanted.map(|(_, holding)| holding.owned.as_mut());
        owned.map(|owned| owned.expect("asked for slices that are not empty")).collect()
    }

    /// Values of a node's weights, as its operator takes them.
    pub fn values(&self, node: NodeId) -> Vec<Tensor> {
        let indices = self.by_node.get(&node).map_or(&[][..], |indices| indices);
        indices.iter().map(|index| self.parameters[index].value.clone()).collect()
    }

    /// Makes room for the gradient sums of a node's weights in one lane, if there is none yet;
    /// returns the bytes that this took. The first gradient is written there, not added.
    pub fn open_lane(&mut self, node: NodeId, lane: usize) -> u64 {
        let lane = lane - self.first_lane;
        let mut opened = 0;
        for index in &self.by_node[&node] {
            let holding = self.parameters.get_mut(index).expect("held, as by_node says");
            if holding.is_trained && holding.lanes[lane].is_none() {
                let room = Floats::with_capacity(&holding.value.place(), holding.value.len());
                holding.lanes[lane] = Some(room);
                opened += holding.value.len() * DType::F32.size();
            }
        }
        opened as u64
    }

    /// Takes the gradient sums of a node's weights in one lane that is open.
    pub fn take_lane(&mut self, node: NodeId, lane: usize) -> Vec<Floats> {
        let lane = lane - self.first_lane;
        let take = |index: &usize| {
            let holding = self.parameters.get_mut(index).expect("held, as by_node says");
            let sum = holding.lanes[lane].take();
            if holding.is_trained { sum.expect("opened before its W") } else { Floats::default() }
        };
        self.by_node[&node].iter().map(take).collect()
    }

    /// Puts them back.
    pub fn put_lane(&mut self, node: NodeId, lane: usize, sums: Vec<Floats>) {
        let lane = lane - self.first_lane;
        for (index, sum) in self.by_node[&node].iter().zip(sums) {
            let holding = self.parameters.get_mut(index).expect("held, as by_node says");
            holding.lanes[lane] = holding.is_trained.then_some(sum);
        }
    }

    /// Takes all lanes of a parameter at the end of a step; what no gradient reached is zero.
    pub fn take_lanes(&mut self, parameter: usize) -> Vec<Floats> {
        let holding = self.parameters.get_mut(&parameter).expect("asked for what is held");
        let size = holding.value.len();
        let place = holding.value.place();
        let take = |lane: &mut Option<Floats>| {
            let sum = lane.take();
            let mut sum = sum.unwrap_or_else(|| Floats::with_capacity(&place, size));
            sum.fill_up(size);
            sum
        };
        holding.lanes.iter_mut().map(take).collect()
    }

    /// Bytes of values, masters and states.
    pub fn fixed(&self) -> Fixed {
        let mut fixed = Fixed::default();
        for holding in self.parameters.values() {
            fixed.parameters += holding.value.byte_len() as u64;
            if let Some(owned) = &holding.owned {
                let (masters, states) = owned.bytes();
                match owned.on_host {
                    true => fixed.host += masters + states,
                    false => {
                        fixed.masters += masters;
                        fixed.states += states;
                    }
                }
            }
        }
        fixed
    }
}

impl Brief {
    /// Format in which forward and backward read a parameter.
    pub fn format(&self, parameter: usize) -> DType {
        self.graph.parameters()[parameter].format(self.dtype)
    }
}
