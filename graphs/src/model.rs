//! The model as written, a petgraph DAG for one microbatch, with shapes along its edges.

/// Position of a node in execution order.
pub type NodeId = usize;
