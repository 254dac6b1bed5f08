//! Ranks that do not answer, and calls that are refused: an error in time, and the GPU goes on.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use kernels::cuda::{Device, DeviceError, nccl::Communicator};

use super::{Seat, joined, on_all};
use crate::bed::Bed;

/// How long a rank waits for one that does not answer.
const SOON: Duration = Duration::from_millis(300);

pub fn all(bed: &mut Bed, devices: &[Device], limit: Duration) -> Result<(), DeviceError> {
    unanswered(bed, devices, limit, false)?;
    unanswered(bed, devices, limit, true)?;
    left(bed, devices, limit)?;
    if bed.stream.device().found().name.starts_with("no GPU") {
        misfits(bed, devices, limit)?;
        foreign_memory(bed, devices, limit)?;
        same_device(bed, devices, limit);
    }
    Ok(())
}

/// Two ranks that wait no longer than they have to; connections take longer than messages.
fn pair(devices: &[Device], limit: Duration, is_connected: bool) -> Result<[Seat; 2], DeviceError> {
    let mut seats = joined(&devices[..2], limit)?;
    if is_connected {
        on_all(&mut seats, |seat| {
            let (mut buffer, stream) = (seat.up(&[0.5; 9])?, &seat.streams.communication);
            match seat.rank() {
                0 => seat.communicator.receive(stream, buffer.view_mut(), 1)?,
                _ => seat.communicator.send(stream, buffer.view(), 0)?,
            }
            seat.communicator.wait(&stream.event()?)
        })?;
    }
    let mut hasty = seats.into_iter().map(|seat| {
        let Seat { communicator, streams, arena } = seat;
        Seat { communicator: communicator.with_limit(SOON), streams, arena }
    });
    Ok([(); 2].map(|()| hasty.next().expect("two ranks")))
}

/// The second rank does not send what the first one waits for, before they are connected or after.
fn unanswered(
    bed: &mut Bed,
    devices: &[Device],
    limit: Duration,
    is_connected: bool,
) -> Result<(), DeviceError> {
    let [first, _second] = &pair(devices, limit, is_connected)?;
    let start = Instant::now();
    let (mut buffer, stream) = (first.poisoned::<f32>(9)?, &first.streams.communication);
    let asked = first.communicator.receive(stream, buffer.view_mut(), 1);
    let waited = match asked {
        Ok(()) => first.communicator.wait(&stream.event()?),
        refused => refused,
    };
    let late = |action| DeviceError::Late { action, rank: 0, ranks: 2, limit: SOON };
    let action = if is_connected { "waiting for messages" } else { "a message" };
    bed.holds("no answer is an error", waited == Err(late(action)));
    bed.holds("in time", start.elapsed() < 10 * SOON);
    let again = first.communicator.send(stream, buffer.view(), 1);
    bed.holds("the first error stays", again == Err(late(action)));
    // The message is broken off, or this would wait for it.
    stream.fill(buffer.view_mut(), 0)?;
    stream.wait()?;
    let mut values = [1.0; 9];
    stream.download(buffer.view(), &mut values)?;
    bed.holds("the stream goes on", values == [0.0; 9]);
    Ok(())
}

/// A rank that has left says so, and the others are late.
fn left(bed: &mut Bed, devices: &[Device], limit: Duration) -> Result<(), DeviceError> {
    let [first, second] = pair(devices, limit, false)?;
    second.communicator.abort();
    let mut buffer = second.poisoned::<f32>(4)?;
    let error = second.communicator.receive(&second.streams.communication, buffer.view_mut(), 0);
    bed.holds("a rank that left says so", matches!(error, Err(DeviceError::Message { .. })));
    let mut buffer = first.poisoned::<f32>(4)?;
    let error = first.communicator.receive(&first.streams.communication, buffer.view_mut(), 1);
    bed.holds("a rank that left is missed", matches!(error, Err(DeviceError::Late { .. })));
    Ok(())
}

/// A rank sends more than the other one receives, or in another format.
fn misfits(bed: &mut Bed, devices: &[Device], limit: Duration) -> Result<(), DeviceError> {
    for (is_other_format, text) in [
        (false, "invalid usage, rank 0 sends 10 of format 7, rank 1 receives 9 of format 7"),
        (true, "invalid usage, rank 0 sends 9 of format 7, rank 1 receives 9 of format 2"),
    ] {
        let mut seats = pair(devices, limit, false)?;
        let both = Barrier::new(2);
        let errors = on_all(&mut seats, |seat| {
            let (communicator, stream) = (&seat.communicator, &seat.streams.communication);
            let values = seat.poisoned::<f32>(if is_other_format { 9 } else { 10 })?;
            let mut numbers = seat.poisoned::<i32>(9)?;
            let mut fewer = seat.poisoned::<f32>(9)?;
            let asked = match (seat.rank(), is_other_format) {
                (0, _) => communicator.send(stream, values.view(), 1),
                (_, false) => communicator.receive(stream, fewer.view_mut(), 0),
                (_, true) => communicator.receive(stream, numbers.view_mut(), 0),
            };
            let outcome = match asked {
                Ok(()) => communicator.wait(&stream.event()?),
                refused => refused,
            };
            // Until then nobody gives buffers back.
            both.wait();
            Ok(outcome)
        })?;
        for error in errors {
            let is_told =
                matches!(&error, Err(DeviceError::Message { cause, .. }) if cause == text);
            bed.holds(&format!("{text}: {error:?}"), is_told);
        }
    }
    Ok(())
}

/// Memory of another GPU is refused at once.
fn foreign_memory(bed: &mut Bed, devices: &[Device], limit: Duration) -> Result<(), DeviceError> {
    let [first, second] = pair(devices, limit, false)?;
    let foreign = second.poisoned::<f32>(4)?;
    let error = first.communicator.send(&first.streams.communication, foreign.view(), 1);
    let text = "a message failed on rank 0 of 2, which left its communicator: invalid argument, \
                memory that the device does not have";
    bed.holds("foreign memory", error.is_err_and(|error| error.to_string() == text));
    Ok(())
}

/// Two ranks on one GPU are refused.
fn same_device(bed: &mut Bed, devices: &[Device], limit: Duration) {
    let twice = [devices[0].clone(), devices[0].clone()];
    let error = Communicator::of_devices(&twice, limit).err().map(|error| error.to_string());
    let text = "joining a communicator failed on rank 0 of 2, which left its communicator: invalid \
                usage, two ranks have the same device";
    bed.holds("two ranks on one GPU", error.as_deref() == Some(text));
}
