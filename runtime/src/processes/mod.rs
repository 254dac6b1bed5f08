//! A run over several processes, joined by MPI.
//!
//! Every process lowers the same job to the same plan and hosts the actors of its ranks
//! ([`Spread`]). Process 0 conducts: it has the loader, hears all reports and writes all files; the
//! others follow ([`follow`]). Actors know nothing of it: what they say to a far actor goes through
//! [`Line`] to the thread that speaks MPI, and comes out of the far one's into the actor's queue,
//! in the order in which it was sent. The credits of the plan bound what is under way.
//!
//! Before the first step the processes compare what has to be alike. Nobody waits for a process
//! that is gone: whoever has heard nothing for long asks, and the thread that speaks MPI answers,
//! whatever its process computes.

mod alike;
mod follower;
mod frame;
mod line;
mod spread;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kernels::mpi::{MpiError, World};

pub(crate) use self::alike::alike;
pub use self::{follower::follow, line::Line, spread::Spread};
use self::{
    frame::{Control, Frame},
    line::{Order, Porter},
};
use crate::{board::Sight, brief::Brief, error::RunError, post::Post};

/// How long a process may take to answer whether it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// This process's place among those of a run, and its end of the line to them.
///
/// Used by the thread that leads the process alone.
#[derive(Debug)]
pub struct Processes {
    number: usize,
    count: usize,
    line: Line,
    heard: Receiver<(usize, Control)>,
    /// Heard while waiting for something else.
    aside: RefCell<VecDeque<(usize, Control)>>,
    /// Clusters begun, and questions asked.
    clusters: Cell<u64>,
    questions: Cell<u64>,
    /// Whether a process does not answer, so that leaving in order would wait for ever.
    is_broken: Cell<bool>,
    porter: RefCell<Option<JoinHandle<()>>>,
}

/// What a follower does after a phase.
#[derive(Debug)]
pub enum Next {
    /// Goes on with the next phase, from this checkpoint.
    Phase(PathBuf),
    /// Ends with this exit code.
    Leave(u8),
}

impl Processes {
    /// Joins the processes that were started together with this one.
    ///
    /// # Errors
    ///
    /// [`MpiError`] if the program was built without MPI, or MPI does not begin.
    pub fn join() -> Result<Self, MpiError> {
        let (orders, from_all) = mpsc::channel();
        let (to_leader, heard) = mpsc::channel();
        let (told, joined) = mpsc::channel();
        // MPI is begun by the thread that makes all later calls, and asks for nothing else.
        let porter = thread::spawn(move || match World::join() {
            Ok(world) => {
                let place = (world.rank(), world.size());
                // The other end waits for this below.
                let _ = told.send(Ok(place));
                Porter::new(world, from_all, to_leader).run();
            }
            Err(error) => drop(told.send(Err(error))),
        });
        let place = joined.recv().map_err(|_| MpiError::NotInitialised)?;
        let (number, count) = place?;
        Ok(Processes {
            number,
            count,
            line: Line { orders, cluster: 0 },
            heard,
            aside: RefCell::new(VecDeque::new()),
            clusters: Cell::new(0),
            questions: Cell::new(0),
            is_broken: Cell::new(false),
            porter: RefCell::new(Some(porter)),
        })
    }

    /// The number of this process; 0 conducts.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this process conducts, and speaks for all.
    pub fn conducts(&self) -> bool {
        self.number == 0
    }

    /// Whether a process does not answer any more.
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// The other processes whose words this one waits for.
    fn others(&self) -> std::ops::Range<usize> {
        if self.conducts() { 1..self.count } else { 0..1 }
    }

    /// The line of the next cluster.
    pub(crate) fn next_line(&self) -> Line {
        self.clusters.set(self.clusters.get() + 1);
        Line { cluster: self.clusters.get(), ..self.line.clone() }
    }

    /// Lets what comes for the actors of a cluster go to them.
    pub(crate) fn host(&self, line: &Line, brief: &Arc<Brief>, post: &Arc<Post>) {
        self.order(Order::Host(line.cluster, brief.clone(), post.clone()));
    }

    /// Ends the part of the actors of a cluster in the other processes, and in this one.
    pub(crate) fn end(&self, line: &Line) {
        self.tell_all(&|| Control::End { cluster: line.cluster });
        self.order(Order::Free);
    }

    /// If the thread is gone, whoever waits for an answer will know.
    fn order(&self, order: Order) {
        let _ = self.line.orders.send(order);
    }

    fn tell(&self, process: usize, control: Control) {
        self.line.send(process, Frame::Control(control));
    }

    fn tell_all(&self, control: &dyn Fn() -> Control) {
        self.others().for_each(|process| self.tell(process, control()));
    }

    /// Tells the followers that the next phase begins, from a checkpoint.
    pub fn go_on(&self, checkpoint: &std::path::Path) {
        let absolute = std::path::absolute(checkpoint).unwrap_or_else(|_| checkpoint.into());
        self.tell_all(&|| Control::GoOn { checkpoint: absolute.clone() });
    }

    /// Tells the conductor that this process cannot go on, and why.
    pub fn refuse(&self, code: u8, text: String) {
        self.tell(0, Control::Refused { code, text });
    }

    /// What a follower does next; waits for the conductor's word.
    ///
    /// # Errors
    ///
    /// [`RunError::Lost`] if the conductor does not answer.
    pub fn next(&self, patience: Duration) -> Result<Next, RunError> {
        loop {
            match self.wait(patience)? {
                (_, Control::GoOn { checkpoint }) => return Ok(Next::Phase(checkpoint)),
                (_, Control::Leave { code }) => return Ok(Next::Leave(code)),
                _ => {}
            }
        }
    }

    /// Ends this process's part: the conductor tells the others, and everybody leaves together. If
    /// somebody does not answer, all are ended at once.
    pub fn leave(&self, code: u8) {
        if self.is_broken.get() {
            self.order(Order::Abort(code));
        } else if self.conducts() {
            self.tell_all(&|| Control::Leave { code });
        }
        self.order(Order::Close);
        let porter = self.porter.take();
        if let Some(porter) = porter {
            // A panic there is silence to all who wait.
            let _ = porter.join();
        }
    }

    /// The next word of another process; asks after a while whether those are there whom it waits
    /// for.
    fn wait(&self, patience: Duration) -> Result<(usize, Control), RunError> {
        loop {
            let aside = self.aside.borrow_mut().pop_front();
            if let Some(word) = aside {
                return Ok(word);
            }
            match self.heard.recv_timeout(patience) {
                Ok(word) => return Ok(word),
                Err(RecvTimeoutError::Timeout) => drop(self.ask()?),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost(self.number)),
            }
        }
    }

    /// What the actors of the other processes do, in the order of processes. The answers come
    /// behind everything that was sent to this process before.
    ///
    /// # Errors
    ///
    /// [`RunError::Lost`] if one does not answer in time.
    pub(crate) fn ask(&self) -> Result<Vec<Sight>, RunError> {
        let number = self.questions.get() + 1;
        self.questions.set(number);
        self.others().for_each(|process| self.line.send(process, Frame::Ask { number }));
        let deadline = Instant::now() + ANSWER;
        let mut sights: Vec<Option<Sight>> = self.others().map(|_| None).collect();
        while let Some(missing) = sights.iter().position(Option::is_none) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((from, Control::Answer { number: of, sight })) if of == number => {
                    sights[from - self.others().start] = Some(sight);
                }
                Ok((_, Control::Answer { .. })) => {}
                Ok(word) => self.aside.borrow_mut().push_back(word),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.lost(self.others().start + missing));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost(self.number)),
            }
        }
        Ok(sights.into_iter().flatten().collect())
    }

    fn lost(&self, process: usize) -> RunError {
        self.is_broken.set(true);
        RunError::Lost { process }
    }

    /// Waits until all followers have their actors of a cluster.
    ///
    /// # Errors
    ///
    /// [`RunError::Unlike`] if one is not like this process, [`RunError::Refused`] if one cannot go
    /// on, and [`RunError::Lost`] if one does not answer.
    pub(crate) fn gather(
        &self,
        line: &Line,
        alike: &[(String, String)],
        patience: Duration,
    ) -> Result<(), RunError> {
        let mut missing = self.count - 1;
        while 0 < missing {
            match self.wait(patience)? {
                (process, Control::Ready { cluster, alike: other }) if cluster == line.cluster => {
                    alike::compare(process, alike, &other)?;
                    missing -= 1;
                }
                (process, Control::Refused { code, text }) => {
                    return Err(RunError::Refused { process, code, text });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
