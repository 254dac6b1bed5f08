//! A job on its way from a file to what the actors do: every level of the graph, printed.
//!
//! The file names a model and a plan; the plan cuts the model, finds what crosses the cuts, orders
//! the work of each stage and writes a program for each actor. Nothing is run here.
//!
//! `cargo run --example 03_explain_a_job`, or with another job: `.. -- k2-nano`

use graphs::text;
use jobs::{Request, load};

const TINY: &str = "examples/tiny.ron";

fn main() {
    let job = std::env::args().nth(1).unwrap_or(TINY.into());
    // As `--set` on the command line: two stages, each with its experts on two ranks.
    let sets = vec!["plan=(mesh: (pp: 2, ep: 2))".to_string()];
    let loaded = match load(&Request { job, sets, ..Request::default() }) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            std::process::exit(3);
        }
    };
    let (graph, plan) = (loaded.graph, loaded.plan);
    let level = |what: &str, text: &str| {
        println!("{what}");
        text.lines().take(12).for_each(|line| println!("  {line}"));
        match text.lines().count() {
            0..=12 => println!(),
            more => println!("  .. and {} lines more\n", more - 12),
        }
    };
    level(
        "model: number, name, operator, what it reads, what it makes",
        &graphs::text::model(&graph),
    );
    level("place: pieces of the model and who holds them", &text::place(&graph, &plan));
    level("route: what crosses, and how much may be under way", &text::route(&plan));
    level("order: one line a stage", &text::orders(&plan.orders));
    level("programs: what each actor does, one thing after the other", &text::programs(&plan));
}
