//! The actors of this process: all of a plan, or those of its ranks.
//!
//! All traps of actix are met here. Arbiters are kept and joined, since stopping a `System` does
//! not wait for them; every actor has an arbiter, and so a thread, of its own, since a computing
//! actor starves its neighbours; no timer runs in a computing actor, since it would fire late.

use std::{
    ops::Range,
    sync::{Arc, mpsc::Sender},
};

use actix::{Actor, Addr, Arbiter, System};
use graphs::{address::Address, mesh::Mesh, share};

use crate::{
    arena::Arenas,
    board::Board,
    brief::Brief,
    cluster::Setup,
    error::RunError,
    feed::Feed,
    init::Initial,
    lanes::Lanes,
    loader::Loader,
    pace::Pace,
    post::{Connect, Far, Here, Post},
    processes::{Line, Processes, Spread},
    report::Report,
    worker::Worker,
};

/// Running actors.
pub(crate) struct Crew {
    pub brief: Arc<Brief>,
    pub post: Arc<Post>,
    arbiters: Vec<Arbiter>,
    /// Keeps actix's registry alive as long as the arbiters.
    _system: actix::SystemRunner,
}

impl Crew {
    /// Starts one thread and actor for each stage and expert group of this process's ranks, and
    /// their lanes; `conductor` hears their reports if it is in this process.
    ///
    /// # Errors
    ///
    /// [`RunError::Weights`] if the tensors to start from do not fit the model.
    ///
    /// # Panics
    ///
    /// If there are more processes than ranks.
    pub fn start(
        setup: Setup,
        over: Option<(&Processes, Line)>,
        conductor: Option<Sender<Report>>,
    ) -> Result<Self, RunError> {
        let (machine, seed, tensors) = (setup.machine.clone(), setup.seed, setup.tensors.clone());
        let brief = Arc::new(brief(setup));
        let initial = Initial::new(&brief.graph, &brief.optimizer, seed, &tensors)?;
        let far = over.map(|(processes, line)| far(processes, line, &brief.plan.mesh));
        let mesh = brief.plan.mesh;
        let ranks = far.as_ref().map_or(0..mesh.ranks(), Far::ranks);
        let system = System::new();
        let mut arbiters = Vec::new();
        let mut workers = Vec::new();
        for address in Address::all(&mesh) {
            if !ranks.contains(&(address.index(&mesh) / 2)) {
                continue;
            }
            let worker = Worker::new(address, brief.clone(), &initial);
            let arbiter = Arbiter::new();
            // What started several processes has dealt out the cores already.
            let own = if far.is_some() { None } else { cores(address, &mesh) };
            workers.push(Worker::start_in_arbiter(&arbiter.handle(), |_| {
                own.into_iter().for_each(kernels::cores::keep_to);
                worker
            }));
            arbiters.push(arbiter);
        }
        let lanes = Lanes::start(machine.as_ref(), &brief, ranks.len(), &mut arbiters);
        let queues = workers.iter().map(|worker| worker.clone().recipient()).collect();
        let here = Here { first: ranks.start, workers: queues, ..lanes.here() };
        let post = Arc::new(Post::new(mesh, here, far, conductor));
        lanes.connect(&post);
        workers.iter().for_each(|worker| worker.do_send(Connect(post.clone())));
        Ok(Crew { brief, post, arbiters, _system: system })
    }

    /// Starts the loader, which reads from a feed where it stands.
    pub fn start_loader(&mut self, feed: Box<dyn Feed>) -> Addr<Loader> {
        let loader = Loader::new(self.brief.clone(), self.post.clone(), feed);
        let arbiter = Arbiter::new();
        let loader = Loader::start_in_arbiter(&arbiter.handle(), |_| loader);
        self.arbiters.push(arbiter);
        loader
    }
}

/// What all actors know from the start.
fn brief(setup: Setup) -> Brief {
    let machine = setup.machine.as_ref();
    Brief {
        shares: share::shares(&setup.plan, &setup.graph),
        hosted: share::hosted(&setup.plan, &setup.graph, &setup.optimizer),
        bus: machine.and_then(|it| it.host),
        board: Board::new(2 * setup.plan.mesh.ranks()),
        arenas: Arenas::new(machine.and_then(|it| it.device), &setup.plan.mesh),
        pace: machine.and_then(|it| Pace::new(it, &setup)),
        plan: setup.plan,
        graph: setup.graph,
        optimizer: setup.optimizer,
        dtype: setup.dtype,
        audit: setup.audit,
        places: setup.places,
    }
}

fn far(processes: &Processes, line: Line, mesh: &Mesh) -> Far {
    let spread = Spread::new(mesh.ranks(), processes.count());
    let spread = spread.expect("whoever starts several processes has asked for their ranks");
    Far { own: processes.number(), spread, line }
}

/// The cores of an actor's rank, an equal share each; `None` if there are fewer cores than ranks,
/// and the system had better decide.
///
/// The two actors of a rank work in turns, so they share its cores and what its caches hold.
fn cores(address: Address, mesh: &Mesh) -> Option<Range<usize>> {
    let (rank, ranks) = (address.index(mesh) / 2, mesh.ranks());
    let each = std::thread::available_parallelism().map_or(1, usize::from) / ranks;
    (0 < each && 1 < ranks).then(|| rank * each..(rank + 1) * each)
}

impl Drop for Crew {
    fn drop(&mut self) {
        for arbiter in self.arbiters.drain(..) {
            arbiter.stop();
            // An arbiter whose thread panicked has been reported already.
            let _ = arbiter.join();
        }
    }
}
