//! The codes of mistakes; `troupe explain CODE` says more about each.

/// The text is no RON.
pub const SYNTAX: &str = "S001";
/// A comma is missing.
pub const COMMA: &str = "S002";
/// A comment starts with `#`.
pub const COMMENT: &str = "S003";
/// A unit stands outside quotes.
pub const UNIT_QUOTES: &str = "S004";
/// Braces where parentheses belong, or the reverse.
pub const BRACES: &str = "S005";
/// A bracket is not closed, or closed by another.
pub const UNCLOSED: &str = "S006";
/// Two pairs of parentheses.
pub const PARENTHESES: &str = "S007";
/// A field stands twice.
pub const TWICE: &str = "S008";
/// A string is not well formed.
pub const STRING: &str = "S009";
/// A value of the wrong kind.
pub const TYPE: &str = "S010";
/// A field is missing.
pub const MISSING: &str = "S011";
/// A field that does not exist.
pub const UNKNOWN_FIELD: &str = "S012";
/// A variant that does not exist.
pub const UNKNOWN_VARIANT: &str = "S013";
/// A quantity with a unit it cannot have.
pub const UNIT: &str = "S014";
/// A number outside its range, or another value that is not allowed.
pub const VALUE: &str = "S015";
/// A file cannot be read.
pub const FILE: &str = "S020";
/// Files or plans refer to each other in a circle.
pub const CYCLE: &str = "S021";
/// A preset or library job that does not exist.
pub const LIBRARY: &str = "S022";
/// A plan that does not exist.
pub const UNKNOWN_PLAN: &str = "S023";
/// An argument of `--set` that cannot be followed.
pub const SET: &str = "S024";
/// A saved plan whose inputs are not what they were.
pub const SEAL: &str = "S025";
/// A phase that does not exist.
pub const UNKNOWN_PHASE: &str = "S026";
/// No learner, or more than one.
pub const LEARNER: &str = "J201";
/// A name that is no actor.
pub const UNKNOWN_ACTOR: &str = "J202";
/// An actor of the wrong kind.
pub const ACTOR_KIND: &str = "J203";
/// A batch that is not whole sequences.
pub const BATCH: &str = "J204";
/// A tokenizer with more tokens than the model.
pub const VOCABULARY: &str = "J205";
/// A learning rate whose phases do not follow each other.
pub const RATE: &str = "J206";
/// A number that must be above zero.
pub const POSITIVE: &str = "J207";
/// A plan with more ranks than the cluster has GPUs.
pub const RANKS: &str = "J209";
/// Settings that do not go together.
pub const CLASH: &str = "J208";
