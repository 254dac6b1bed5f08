//! What a simulated rank did, summed up as it goes, and span by span if asked.

use crate::{
    plan::{Cargo, CopyStep, Instruction, Side},
    timeline::{Cause, Kind, Lane, Span, Task, Wait},
};

/// One rank.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// First start of a computation.
    pub start: Option<f64>,
    /// Last end of a computation.
    pub free: f64,
    /// Seconds in which something was computed.
    pub busy: f64,
    /// Last end of a transfer.
    sent: f64,
    /// Seconds in which something was sent.
    pub sending: f64,
    /// Seconds of idle time by cause.
    pub idle: [f64; Cause::ALL.len()],
    /// The spans, if they are kept.
    pub spans: Option<Vec<Span>>,
}

impl Record {
    /// A rank that keeps room for so many spans, or none.
    pub fn new(spans: Option<usize>) -> Self {
        Record {
            start: None,
            free: 0.0,
            busy: 0.0,
            sent: 0.0,
            sending: 0.0,
            idle: [0.0; Cause::ALL.len()],
            spans: spans.map(Vec::with_capacity),
        }
    }

    /// Notes a computation; `wait` says why, if it starts after everything else here has ended.
    pub fn compute(
        &mut self,
        id: usize,
        task: Task,
        (start, end): (f64, f64),
        wait: impl FnOnce(f64) -> (Cause, Option<(usize, usize)>),
    ) {
        let since = self.free;
        let wait = (start > since).then(|| {
            let (cause, on) = wait(since);
            let cause = if self.start.is_none() { Cause::WarmUp } else { cause };
            self.idle[cause as usize] += start - since;
            Wait { since, cause, on }
        });
        self.start.get_or_insert(start);
        self.busy += f64::max(end - since.max(start), 0.0);
        self.free = since.max(end);
        if let Some(spans) = &mut self.spans {
            spans.push(Span { id, lane: Lane::Compute, task, start, end, wait });
        }
    }

    /// Notes a copy to the host, or back.
    pub fn copy(&mut self, id: usize, task: Task, (start, end): (f64, f64)) {
        if let Some(spans) = &mut self.spans {
            spans.push(Span { id, lane: Lane::Copy, task, start, end, wait: None });
        }
    }

    /// Notes a message, and since when it waited for a buffer, if it did.
    pub fn send(&mut self, id: usize, task: Task, (start, end): (f64, f64), wait: Option<Wait>) {
        self.sending += f64::max(end - self.sent.max(start), 0.0);
        self.sent = self.sent.max(end);
        if let Some(spans) = &mut self.spans {
            spans.push(Span { id, lane: Lane::Communication, task, start, end, wait });
        }
    }
}

/// A computation as timelines name it.
pub fn work(side: Side, instruction: Instruction) -> Option<Task> {
    let stage = side == Side::Stage;
    let (kind, chunk, segment, microbatch) = match instruction {
        Instruction::Forward { chunk, segment, microbatch } => {
            let kind = if stage { Kind::Forward } else { Kind::ExpertForward };
            (kind, chunk, segment, microbatch)
        }
        Instruction::BackwardInput { chunk, segment, microbatch } => {
            let kind = if stage { Kind::BackwardInput } else { Kind::ExpertBackwardInput };
            (kind, chunk, segment, microbatch)
        }
        Instruction::BackwardWeight { chunk, segment, microbatch } => {
            let kind = if stage { Kind::BackwardWeight } else { Kind::ExpertBackwardWeight };
            (kind, chunk, segment, microbatch)
        }
        Instruction::Restore { chunk, segment, microbatch } => {
            (Kind::Recompute, chunk, segment, microbatch)
        }
        Instruction::Receive { .. }
        | Instruction::Send { .. }
        | Instruction::Copy { .. }
        | Instruction::Reduce { .. } => return None,
    };
    Some(Task { kind, chunk, segment, microbatch })
}

/// The way of complete gradients as timelines name it.
pub fn reduce(instruction: Instruction) -> Option<Task> {
    let Instruction::Reduce { chunk, segment } = instruction else { return None };
    Some(Task { kind: Kind::Reduce, chunk, segment, microbatch: 0 })
}

/// A copy as timelines name it; nothing of what only waits for one.
pub fn copy(instruction: Instruction) -> Option<Task> {
    let Instruction::Copy { step, chunk, segment, microbatch } = instruction else { return None };
    let kind = match step {
        CopyStep::Offload => Kind::Offload,
        CopyStep::Fetch => Kind::Fetch,
        CopyStep::Offloaded | CopyStep::Fetched => return None,
    };
    Some(Task { kind, chunk, segment, microbatch })
}

/// A message as timelines name it.
pub fn message(cargo: Cargo, microbatch: usize) -> Task {
    let (kind, chunk, segment) = match cargo {
        Cargo::Activations { chunk } => (Kind::Activations, chunk, 0),
        Cargo::Gradients { chunk } => (Kind::Gradients, chunk, 0),
        Cargo::Dispatch { chunk, visit } => (Kind::Dispatch, chunk, visit),
        Cargo::Combine { chunk, visit } => (Kind::Combine, chunk, visit),
        Cargo::CombineGradients { chunk, visit } => (Kind::CombineGradients, chunk, visit),
        Cargo::DispatchGradients { chunk, visit } => (Kind::DispatchGradients, chunk, visit),
    };
    Task { kind, chunk, segment, microbatch }
}
