//! Messages between GPUs: every kind of them among all GPUs, and ranks that do not answer.
//!
//! With one GPU its rank is alone, and sends to itself.

mod faults;

use std::{thread, time::Duration};

use half::bf16;
use kernels::cuda::{
    Arena, Buffer, Compiler, Device, DeviceError, Element, Float, Streams, libraries,
    nccl::{self, Communicator, UniqueId},
    probe,
};

use crate::bed::{Bed, Same, named};

/// Bytes of each rank's arena.
const ARENA_BYTES: u64 = 16 << 20;

/// Elements of messages: one, few, more than a message's first piece.
const LENGTHS: [usize; 3] = [1, 1000, 300_001];

/// Width of the rows that are exchanged, and how many counts a rank has for each rank.
const WIDTH: usize = 5;
const EXPERTS: usize = 3;

/// One rank, with what it needs.
struct Seat {
    communicator: Communicator,
    streams: Streams,
    arena: Arena,
}

pub fn all(bed: &mut Bed, limit: Duration) -> Result<(), DeviceError> {
    let [.., library] = libraries();
    match library.version {
        Err(error @ DeviceError::NoLibrary { .. }) => {
            println!("messages are not checked: {error}");
            return Ok(());
        }
        other => println!("messages by {} {}", library.name, other?),
    }
    let devices = devices(bed)?;
    println!("ranks: {}", devices.len());
    let mut seats = joined(&devices, limit)?;
    round::<f32>(bed, &mut seats)?;
    round::<bf16>(bed, &mut seats)?;
    round_of_counts(bed, &mut seats)?;
    pairs(bed, &mut seats)?;
    exchange::<f32>(bed, &mut seats)?;
    exchange::<bf16>(bed, &mut seats)?;
    gather::<f32>(bed, &mut seats)?;
    gather::<bf16>(bed, &mut seats)?;
    sums(bed, &mut seats)?;
    let finished = seats.into_iter().map(|seat| thread::spawn(|| finish(seat)));
    let finished: Vec<_> = finished.collect();
    finished.into_iter().try_for_each(|thread| thread.join().expect("no panic"))?;
    one_thread(bed, &devices, limit)?;
    if 1 < devices.len() { faults::all(bed, &devices, limit) } else { Ok(()) }
}

/// All GPUs, the bed's first.
fn devices(bed: &Bed) -> Result<Vec<Device>, DeviceError> {
    let own = bed.stream.device();
    let folder = Compiler::usual_folder();
    let others = probe()?.into_iter().map(|found| found.ordinal);
    let others = others.filter(|ordinal| *ordinal != own.found().ordinal);
    let others = others.map(|ordinal| Device::open(ordinal, folder.as_deref()));
    [Ok(own.clone())].into_iter().chain(others).collect()
}

/// A thread for each rank, as if it were a process, which is told the id by its bytes.
fn joined(devices: &[Device], limit: Duration) -> Result<Vec<Seat>, DeviceError> {
    let told = UniqueId::new()?.bytes();
    let mut ranks: Vec<usize> = (0..devices.len()).collect();
    on_all(&mut ranks, |rank| {
        let (device, id) = (&devices[*rank], UniqueId::from_bytes(told));
        let communicator = Communicator::join(device, &id, *rank, devices.len(), limit)?;
        Seat::new(communicator)
    })
}

fn finish(seat: Seat) -> Result<(), DeviceError> {
    nccl::finish(vec![seat.communicator])
}

/// Runs something in a thread for each rank. Where several fail, what failed counts more than what
/// waited for it.
fn on_all<S: Send, R: Send>(
    seats: &mut [S],
    work: impl Fn(&mut S) -> Result<R, DeviceError> + Sync,
) -> Result<Vec<R>, DeviceError> {
    let work = &work;
    let all: Vec<Result<R, DeviceError>> = thread::scope(|scope| {
        let threads: Vec<_> =
            seats.iter_mut().map(|seat| scope.spawn(move || work(seat))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let errors = || all.iter().filter_map(|outcome| outcome.as_ref().err());
    let first = errors().find(|error| !matches!(error, DeviceError::Late { .. }));
    match first.or(errors().next()) {
        Some(error) => Err(error.clone()),
        None => all.into_iter().collect(),
    }
}

impl Seat {
    fn new(communicator: Communicator) -> Result<Self, DeviceError> {
        let device = communicator.device();
        let (streams, arena) = (Streams::new(device)?, Arena::new(device, ARENA_BYTES)?);
        Ok(Seat { communicator, streams, arena })
    }

    fn rank(&self) -> usize {
        self.communicator.rank()
    }

    /// The rank that sends to this one in a round, and the one that it sends to.
    fn neighbours(&self) -> (usize, usize) {
        let (rank, ranks) = (self.communicator.rank(), self.communicator.ranks());
        ((rank + ranks - 1) % ranks, (rank + 1) % ranks)
    }

    /// The values on the device, which messages may read from now on.
    fn up<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.arena.buffer(values.len())?;
        self.streams.compute.upload(values, buffer.view_mut())?;
        self.streams.communication.wait_for(&self.streams.compute.event()?)?;
        Ok(buffer)
    }

    /// Room for what comes, full of NaN.
    fn poisoned<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.arena.buffer(len)?;
        self.streams.compute.fill(buffer.view_mut(), 0xFF)?;
        self.streams.communication.wait_for(&self.streams.compute.event()?)?;
        Ok(buffer)
    }

    /// What has come, when it has.
    fn down<T: Element>(&self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        self.communicator.wait(&self.streams.communication.event()?)?;
        let mut values = vec![T::zeroed(); buffer.len()];
        self.streams.compute.download(buffer.view(), &mut values)?;
        Ok(values)
    }
}

/// Each rank sends to the next one.
fn send_round<T: Element>(
    seats: &mut [Seat],
    inputs: &[Vec<T>],
) -> Result<Vec<Vec<T>>, DeviceError> {
    on_all(seats, |seat| {
        let (before, behind) = seat.neighbours();
        let own = seat.up(&inputs[seat.rank()])?;
        let mut other = seat.poisoned(inputs[before].len())?;
        let stream = &seat.streams.communication;
        nccl::group(|group| {
            group.send(&seat.communicator, stream, own.view(), behind);
            group.receive(&seat.communicator, stream, other.view_mut(), before);
        })?;
        seat.down(&other)
    })
}

fn check_round<T: Same>(bed: &mut Bed, name: &str, inputs: &[Vec<T>], outputs: &[Vec<T>]) {
    for (rank, output) in outputs.iter().enumerate() {
        let before = (rank + inputs.len() - 1) % inputs.len();
        bed.arrived(&format!("{name} to rank {rank}"), output, &inputs[before]);
    }
}

fn round<N: Float + Same>(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    for len in LENGTHS {
        let inputs: Vec<Vec<N>> = seats.iter().map(|_| bed.normal(len, 1.0)).collect();
        let outputs = send_round(seats, &inputs)?;
        check_round(bed, &named::<N>("round", len), &inputs, &outputs);
    }
    Ok(())
}

/// Whole numbers and bytes go the same way; a message of none is none.
fn round_of_counts(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    for len in [0, 77] {
        let inputs: Vec<Vec<i32>> = seats.iter().map(|_| bed.below(len, 1 << 30)).collect();
        let outputs = send_round(seats, &inputs)?;
        check_round(bed, "round of numbers", &inputs, &outputs);
        let bytes = |numbers: &Vec<i32>| numbers.iter().map(|number| *number as u8).collect();
        let inputs: Vec<Vec<u8>> = inputs.iter().map(bytes).collect();
        let outputs = send_round(seats, &inputs)?;
        check_round(bed, "round of bytes", &inputs, &outputs);
    }
    Ok(())
}

/// Without a group: two messages from each even rank to the next, in their order, and one back.
fn pairs(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    let inputs: Vec<[Vec<f32>; 2]> =
        seats.iter().map(|_| [bed.normal(4000, 1.0), bed.normal(4000, 1.0)]).collect();
    let ranks = seats.len();
    let outputs = on_all(seats, |seat| {
        let (rank, peer) = (seat.rank(), seat.rank() ^ 1);
        let own = [seat.up(&inputs[rank][0])?, seat.up(&inputs[rank][1])?];
        let mut others = [seat.poisoned(4000)?, seat.poisoned(4000)?];
        let (communicator, stream) = (&seat.communicator, &seat.streams.communication);
        if ranks <= peer {
            return Ok(None);
        } else if rank < peer {
            communicator.send(stream, own[0].view(), peer)?;
            communicator.send(stream, own[1].view(), peer)?;
            communicator.receive(stream, others[0].view_mut(), peer)?;
        } else {
            communicator.receive(stream, others[0].view_mut(), peer)?;
            communicator.receive(stream, others[1].view_mut(), peer)?;
            communicator.send(stream, own[0].view(), peer)?;
        }
        Ok(Some((seat.down(&others[0])?, seat.down(&others[1])?)))
    })?;
    for (rank, outputs) in outputs.into_iter().enumerate() {
        let Some((first, second)) = outputs else { continue };
        bed.arrived(&format!("first message to rank {rank}"), &first, &inputs[rank ^ 1][0]);
        if rank % 2 == 1 {
            bed.arrived(&format!("second message to rank {rank}"), &second, &inputs[rank ^ 1][1]);
        }
    }
    Ok(())
}

/// For each rank, its counts for each rank: a third of the pairs have no row, a third have one, and
/// the others many.
fn random_counts(bed: &mut Bed, ranks: usize) -> Vec<Vec<i32>> {
    let shift = bed.below(1, 3)[0] as usize;
    let mut of_pair = |pair: usize| match (pair + shift) % 3 {
        0 => vec![0; EXPERTS],
        1 => {
            let one = bed.below(1, EXPERTS)[0] as usize;
            (0..EXPERTS).map(|expert| i32::from(expert == one)).collect()
        }
        _ => bed.below(EXPERTS, 90),
    };
    let mut of_rank = |rank: usize| (0..ranks).flat_map(|peer| of_pair(rank + 2 * peer)).collect();
    (0..ranks).map(&mut of_rank).collect()
}

/// Ragged rows go to all ranks, after their counts, and come back.
fn exchange<N: Float + Same>(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    let ranks = seats.len();
    let counts = random_counts(bed, ranks);
    let rows_to = |from: usize, to: usize| {
        let share = &counts[from][to * EXPERTS..(to + 1) * EXPERTS];
        share.iter().map(|count| *count as usize).sum::<usize>()
    };
    let inputs: Vec<Vec<N>> = (0..ranks)
        .map(|from| WIDTH * (0..ranks).map(|to| rows_to(from, to)).sum::<usize>())
        .map(|len| bed.normal(len, 1.0))
        .collect();
    let outputs = on_all(seats, |seat| {
        let (counts, own) = (seat.up(&counts[seat.rank()])?, seat.up(&inputs[seat.rank()])?);
        let place = (&seat.streams.communication, &seat.arena);
        let there = seat.communicator.exchange(place, WIDTH, counts.view(), own.view())?;
        let mut back = seat.poisoned(own.len())?;
        let (shape, values) = ((WIDTH, &there.rows.reversed()), there.values.view());
        seat.communicator.exchange_rows(place.0, shape, values, back.view_mut())?;
        let (back, values) = (seat.down(&back)?, seat.down(&there.values)?);
        Ok((values, seat.down(&there.counts)?, there.host_counts, back))
    })?;
    for (rank, (values, device_counts, host_counts, back)) in outputs.iter().enumerate() {
        let (mut expected, mut expected_counts) = (Vec::new(), Vec::new());
        for from in 0..ranks {
            let start: usize = (0..rank).map(|to| rows_to(from, to)).sum();
            let end = start + rows_to(from, rank);
            expected.extend_from_slice(&inputs[from][WIDTH * start..WIDTH * end]);
            expected_counts.extend(&counts[from][rank * EXPERTS..(rank + 1) * EXPERTS]);
        }
        let name = named::<N>("exchange", &counts);
        bed.arrived(&format!("{name} to rank {rank}"), values, &expected);
        bed.arrived(&format!("{name}, counts to rank {rank}"), device_counts, &expected_counts);
        bed.holds("counts on the host", *host_counts == expected_counts);
        bed.arrived(&format!("{name} back to rank {rank}"), back, &inputs[rank]);
    }
    Ok(())
}

fn gather<N: Float + Same>(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    for len in LENGTHS {
        let inputs: Vec<Vec<N>> = seats.iter().map(|_| bed.normal(len, 1.0)).collect();
        let outputs = on_all(seats, |seat| {
            let own = seat.up(&inputs[seat.rank()])?;
            let mut all = seat.poisoned(inputs.concat().len())?;
            let stream = &seat.streams.communication;
            seat.communicator.all_gather(stream, own.view(), all.view_mut())?;
            seat.down(&all)
        })?;
        for output in outputs {
            bed.arrived(&named::<N>("all-gather", len), &output, &inputs.concat());
        }
    }
    Ok(())
}

/// Parts of the sums, in whatever order they are added.
fn sums(bed: &mut Bed, seats: &mut [Seat]) -> Result<(), DeviceError> {
    let ranks = seats.len();
    for len in LENGTHS {
        let inputs: Vec<Vec<f32>> = seats.iter().map(|_| bed.normal(len * ranks, 1.0)).collect();
        let outputs = on_all(seats, |seat| {
            let own = seat.up(&inputs[seat.rank()])?;
            let mut part = seat.poisoned(len)?;
            let stream = &seat.streams.communication;
            seat.communicator.reduce_scatter(stream, own.view(), part.view_mut())?;
            seat.down(&part)
        })?;
        for (rank, part) in outputs.iter().enumerate() {
            let sum =
                |i: usize| inputs.iter().map(|all| f64::from(all[rank * len + i])).sum::<f64>();
            // Terms are about 1, so each addition is off by 6e-8 of about the root of their number.
            let is_close = |(i, value): (usize, &f32)| (f64::from(*value) - sum(i)).abs() < 1e-5;
            let is_right = part.iter().enumerate().all(is_close);
            bed.holds(&format!("reduce-scatter {len} of rank {rank}"), is_right);
        }
    }
    Ok(())
}

/// One thread has all ranks, and asks for both sides of messages in one group.
fn one_thread(bed: &mut Bed, devices: &[Device], limit: Duration) -> Result<(), DeviceError> {
    let seats = Communicator::of_devices(devices, limit)?.into_iter().map(Seat::new);
    let seats: Vec<Seat> = seats.collect::<Result<_, _>>()?;
    let inputs: Vec<Vec<f32>> = seats.iter().map(|_| bed.normal(5000, 1.0)).collect();
    let own = seats.iter().zip(&inputs).map(|(seat, values)| seat.up(values));
    let own: Vec<_> = own.collect::<Result<_, _>>()?;
    let others = seats.iter().map(|seat| seat.poisoned::<f32>(5000));
    let mut others: Vec<_> = others.collect::<Result<_, _>>()?;
    nccl::group(|group| {
        for ((seat, own), other) in seats.iter().zip(&own).zip(&mut others) {
            let (before, behind) = seat.neighbours();
            let stream = &seat.streams.communication;
            group.receive(&seat.communicator, stream, other.view_mut(), before);
            group.send(&seat.communicator, stream, own.view(), behind);
        }
    })?;
    let outputs = seats.iter().zip(&others).map(|(seat, other)| seat.down(other));
    let outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
    check_round(bed, "round of one thread", &inputs, &outputs);
    nccl::finish(seats.into_iter().map(|seat| seat.communicator).collect())
}
