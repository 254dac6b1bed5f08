//! Arenas, pinned memory, streams and events.

use kernels::cuda::{Arena, DeviceError, Pinned, Streams, reduce};

use crate::bed::Bed;

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    arena(bed)?;
    full_device(bed)?;
    pinned(bed)?;
    streams(bed)
}

/// Buffers lie apart, come back, join with their neighbours, and are refused when there is no room.
fn arena(bed: &mut Bed) -> Result<(), DeviceError> {
    let arena = Arena::new(bed.stream.device(), 4096)?;
    let all: Vec<_> = (0..4).map(|_| arena.buffer::<f32>(256)).collect::<Result<_, _>>()?;
    bed.holds("a full arena has nothing left", arena.free_bytes() == 0);
    let refused = arena.buffer::<u8>(1).err();
    let error = DeviceError::OutOfMemory { place: "the arena", asked: 1, free: 0, total: 4096 };
    bed.holds("a full arena refuses", refused == Some(error));
    let mut all = all.into_iter();
    let (first, second) = (all.next(), all.next());
    drop(second);
    bed.holds("a hole is as large as what left it", arena.buffer::<f32>(257).is_err());
    drop(first);
    bed.holds("holes join", arena.buffer::<f32>(512).is_ok());
    drop(all);
    bed.holds("all comes back", arena.free_bytes() == 4096);
    bed.holds("all of it is one piece", arena.buffer::<u8>(4096).is_ok());
    Ok(())
}

fn full_device(bed: &mut Bed) -> Result<(), DeviceError> {
    let device = bed.stream.device().clone();
    let (free, total) = device.memory()?;
    let refused = Arena::new(&device, 2 * total).err();
    let asked = 2 * total;
    let error = DeviceError::OutOfMemory { place: "the GPU", asked, free, total };
    bed.holds("a full device refuses", refused == Some(error));
    bed.holds("and goes on", Arena::new(&device, 4096).is_ok());
    Ok(())
}

/// Copies through pinned memory arrive, behind an event.
fn pinned(bed: &mut Bed) -> Result<(), DeviceError> {
    let device = bed.stream.device().clone();
    let streams = Streams::new(&device)?;
    let values: Vec<f32> = bed.normal(100_000, 1.0);
    let mut host = Pinned::new(&device, values.len())?;
    host.all_mut().copy_from_slice(&values);
    let mut buffer = bed.poisoned::<f32>(values.len())?;
    streams.back.wait_for(&bed.stream.event()?)?;
    streams.back.fetch(&host, buffer.view_mut())?;
    streams.compute.wait_for(&streams.back.event()?)?;
    reduce::scale(&streams.compute, buffer.view_mut(), 2.0)?;
    let scaled = streams.compute.event()?;
    streams.out.wait_for(&scaled)?;
    let mut back = Pinned::new(&device, values.len())?;
    streams.out.offload(buffer.view(), &mut back)?;
    let arrived = streams.out.event()?;
    arrived.wait()?;
    bed.holds("an event that was waited for is reached", arrived.is_reached()?);
    bed.holds("time goes on", 0.0 <= scaled.us_to(&arrived)?);
    let is_doubled = back.all().iter().zip(&values).all(|(a, b)| *a == 2.0 * b);
    bed.holds("pinned memory comes back", is_doubled);
    Ok(())
}

/// Four streams hand a buffer round, each waiting for the one before.
fn streams(bed: &mut Bed) -> Result<(), DeviceError> {
    let Streams { compute, communication, out, back } = Streams::new(bed.stream.device())?;
    let mut values: Vec<f32> = bed.normal(50_000, 1.0);
    let mut buffer = bed.up(&values)?;
    for round in 0..10 {
        let order = [&compute, &communication, &out, &back];
        let (own, next) = (order[round % 4], order[(round + 1) % 4]);
        reduce::scale(own, buffer.view_mut(), 1.0 + round as f32 / 8.0)?;
        kernels::reduce::scale(&mut values, 1.0 + round as f32 / 8.0);
        next.wait_for(&own.event()?)?;
    }
    out.wait()?;
    communication.wait()?;
    compute.wait()?;
    back.wait()?;
    bed.same("handed round by four streams", &buffer, &values)
}
