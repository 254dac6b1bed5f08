//! Passes over orders and programs, one file each, in the order in which they run.
//!
//! 1. [`split`]: `B` becomes `I` and, now or later, `W`.
//! 2. [`rising`]: weight gradients of a chunk wait for those of earlier microbatches.
//! 3. [`messages`]: actions become segments and visits, with the sends and receives between.
//! 4. [`credits`]: every channel gets the buffers without which the plan would hang, and one more.

pub mod credits;
pub mod messages;
pub mod rising;
pub mod split;
