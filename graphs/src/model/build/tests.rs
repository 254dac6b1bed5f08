//! Small graphs, right and wrong.

use ops::{Add, CrossEntropy, Embedding, Linear, Op, RmsNorm};

use crate::{
    decoder::tests::nano,
    model::{ModelGraph, Source},
    source::{GraphSource, Input, Item, NodeSource},
};

const WIDTH: usize = 8;

fn norm() -> Op {
    Op::RmsNorm(RmsNorm { width: WIDTH, eps: 1e-6 })
}

fn linear(output: usize) -> Op {
    Op::Linear(Linear { input: WIDTH, output, init_std: 0.02 })
}

/// Embedding, the given nodes, loss.
fn around(nodes: &[NodeSource], repeats: &[(&str, usize)]) -> GraphSource {
    let (vocab, width, init_std) = (16, WIDTH, 0.02);
    let embedding = Op::Embedding(Embedding { vocab, width, init_std });
    let head = Op::CrossEntropy(CrossEntropy { width, vocab, chunk: 16, init_std });
    let add = Op::Add(Add { width });
    let block =
        vec![NodeSource::new("norm", norm(), &[]), NodeSource::new("add", add, &["in", "norm"])];
    let mut items = vec![Item::Node(NodeSource::new("embed", embedding, &[]))];
    items.extend(nodes.iter().cloned().map(Item::Node));
    items.extend(repeats.iter().map(|&(block, times)| Item::Repeat(block.into(), times)));
    items.push(Item::Node(NodeSource::new("norm", norm(), &[])));
    items.push(Item::Node(NodeSource::new("head", head, &["norm", "targets"])));
    GraphSource { input: Input::default(), blocks: [("b".to_string(), block)].into(), nodes: items }
}

fn mistakes(source: &GraphSource) -> Vec<String> {
    let errors = ModelGraph::new(source).unwrap_err();
    errors.iter().map(|error| format!("{} {error}", error.code())).collect()
}

#[test]
fn repeats_become_layers_whose_nodes_read_their_own_block() {
    let graph = ModelGraph::new(&around(&[], &[("b", 2), ("b", 1)])).unwrap();
    let names: Vec<&str> = graph.nodes().map(|node| node.name.as_str()).collect();
    assert_eq!(names[3..5], ["model.layers.1.norm", "model.layers.1.add"]);
    assert_eq!(graph.node(4).layer, Some(1));
    let reads = |node| Source::Node { node, port: 0 };
    assert_eq!(graph.node(4).inputs, [reads(2), reads(3)]);
    assert_eq!(graph.consumers(2), [(0, 3, 0), (0, 4, 0)]);
}

#[test]
fn sizes_that_no_machine_could_hold_are_refused_before_anything_is_made() {
    use ops::{GroupedLinear, MlaAttention};
    let attention =
        MlaAttention { heads: usize::MAX, nope: 2, rope: 2, value: 0, rope_theta: 1e4, yarn: None };
    let grouped = |experts| GroupedLinear { experts, input: WIDTH, output: WIDTH, init_std: 0.02 };
    let nodes = [
        NodeSource::new("a", Op::MlaAttention(attention), &["embed"]),
        NodeSource::new("b", Op::GroupedLinear(grouped(1_000_000_000_000)), &["a"]),
    ];
    assert_eq!(
        mistakes(&around(&nodes, &[])),
        [
            "M116 `heads` of node `a` is 18446744073709551615; expected 1 to 33554432",
            "M116 `value` of node `a` is 0; expected 1 to 33554432",
            "M116 `experts` of node `b` is 1000000000000; expected 1 to 16384",
        ]
    );
    let many = vec![NodeSource::new("e", Op::GroupedLinear(grouped(16384)), &["embed"]); 200];
    assert_eq!(
        mistakes(&around(&many, &[])),
        ["M102 the model has 3276803 weights, more than the 2097152 a plan can hold"]
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    let nodes = [
        NodeSource::new("a", norm(), &["embad"]),
        NodeSource::new("b", norm(), &["c"]),
        NodeSource::new("c", linear(9), &["in"]),
        NodeSource::new("c", linear(9), &["embed.1"]),
        NodeSource::new("tokens", linear(9), &["embed"]),
        NodeSource::new("d", norm(), &[]),
    ];
    assert_eq!(
        mistakes(&around(&nodes, &[])),
        [
            "M104 two nodes are named `c`",
            "M105 no node may be named `tokens`: `tokens`, `targets` and `in` have a meaning of \
             their own",
            "M106 node `a` reads `embad`, which does not exist; did you mean `embed`?",
            "M107 node `b` reads `c`, which comes only after it; edges run downwards",
            "M109 node `c` reads `in`, which only nodes of a block have",
            "M108 node `c` reads `embed.1`, but outputs are counted from 0 and there are only 1",
            "M111 node `d` does not fit its input: RmsNorm expects [t, d=8], got [t, 9]",
        ]
    );
}

#[test]
fn the_whole_graph_has_one_loss_and_nothing_unread() {
    let nodes =
        [NodeSource::new("a", norm(), &["embed"]), NodeSource::new("b", norm(), &["embed"])];
    assert_eq!(mistakes(&around(&nodes, &[])), ["M112 nobody reads output 0 of node `a`"]);
    let mut source = around(&[], &[]);
    source.nodes.pop();
    assert_eq!(
        mistakes(&source),
        [
            "M113 the model needs one CrossEntropy, as its last node; it has none",
            "M112 nobody reads output 0 of node `norm`",
        ]
    );
}

#[test]
fn repeats_that_cannot_be_written_out_are_refused() {
    assert_eq!(
        mistakes(&around(&[], &[("dens", 1), ("b", usize::MAX)])),
        [
            "M103 `Repeat(\"dens\", ..)` names no block; there is b".to_string(),
            format!(
                "M102 the model has {} nodes, more than the 200000 a plan can hold",
                usize::MAX
            ),
        ]
    );
}

/// The mistakes of the small model's graph with one node of its experts' layers changed.
fn with_changed(name: &str, from: &[&str]) -> Vec<String> {
    let mut source = nano().expand();
    source.nodes.remove(1);
    source.blocks.remove("dense");
    let moe = source.blocks.get_mut("moe").unwrap();
    let node = moe.iter_mut().find(|node| node.name == name).unwrap();
    node.from = from.iter().map(|from| from.to_string()).collect();
    mistakes(&source)
}

#[test]
fn routed_rows_must_go_through_the_experts_of_one_dispatch() {
    let mixed = "are mixed with what another Dispatch, or none, has sent";
    let rows = ["model.layers.0.mlp.dispatch.0", "mlp.dispatch.1"];
    let found = with_changed("mlp.experts.*.up_proj", &rows);
    let node = |layer: usize, name: &str| {
        format!("M114 routed rows of node `model.layers.{layer}.mlp.experts.{name}` {mixed}")
    };
    let expected = [node(1, "*.up_proj"), node(1, "act"), node(2, "*.up_proj"), node(2, "act")];
    assert_eq!(found, expected);
    let choice = ["mlp.experts.weigh", "model.layers.0.mlp.gate.0"];
    let found = with_changed("mlp.combine", &choice);
    let node = |layer: usize| {
        format!(
            "M114 routed rows of node `model.layers.{layer}.mlp.combine` come back to another \
             choice of experts than the one they were sent by"
        )
    };
    assert_eq!(found, [node(1), node(2)]);
}

#[test]
fn attention_must_be_fed_by_matrices_that_can_be_clipped() {
    let mut source = nano().expand();
    let dense = source.blocks.get_mut("dense").unwrap();
    let position = dense.iter().position(|node| node.name == "self_attn.attention").unwrap();
    dense.insert(
        position,
        NodeSource::new(
            "twice",
            Op::Add(Add { width: 192 }),
            &["self_attn.q_b_proj", "self_attn.q_b_proj"],
        ),
    );
    dense[position + 1].from[0] = "twice".into();
    assert_eq!(
        mistakes(&source),
        ["M115 attention `model.layers.0.self_attn.attention` reads its queries from \
             `model.layers.0.twice`; QK-Clip needs a Linear there"]
    );
}

#[test]
fn clips_know_the_weights_of_queries_and_keys() {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    assert_eq!(graph.clips().len(), 4);
    let clip = &graph.clips()[2];
    let name = |index: usize| graph.parameters()[index].name.as_str();
    assert_eq!(name(clip.query), "model.layers.2.self_attn.q_b_proj.weight");
    assert_eq!(name(clip.keys), "model.layers.2.self_attn.kv_b_proj.weight");
    assert_eq!((clip.heads, clip.nope, clip.rope, clip.value), (4, 32, 16, 32));
}

#[test]
fn a_model_may_be_cut_where_one_tensor_crosses_half_layers_included() {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let after: Vec<&str> =
        graph.cut_points().iter().map(|&cut| graph.node(cut - 1).name.as_str()).collect();
    let mut expected = vec!["model.embed_tokens".to_string()];
    for layer in 0..4 {
        expected.push(format!("model.layers.{layer}.self_attn.add"));
        expected.push(format!("model.layers.{layer}.mlp.add"));
    }
    expected.push("model.norm".into());
    assert_eq!(after, expected);
    assert!(graph.cut_points().iter().all(|&cut| graph.crossing(cut).len() == 1));
}
