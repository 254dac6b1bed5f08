//! Passes over orders and programs, one file each, in the order in which they run.
//!
//! 1. [`split`]: `B` becomes `I` and, now or later, `W`.
//! 2. [`rising`]: weight gradients of a chunk wait for those of earlier microbatches.
//! 3. [`overlap`]: a forward and a backward pass become one step.
//! 4. [`copies`]: what is kept goes to the host between its passes.
//! 5. [`messages`]: steps become segments and visits, with the sends and receives between, and what
//!    was dropped or stored is restored.
//! 6. [`reduce`]: weight gradients leave as soon as they are complete.
//! 7. [`credits`]: every channel gets the buffers without which the plan would hang, and one more.

pub mod copies;
pub mod credits;
pub mod messages;
pub mod overlap;
pub mod reduce;
pub mod rising;
pub mod split;
