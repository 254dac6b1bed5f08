//! A link of a rank: one message after the other, and gradient sums where nothing else is sent.
//!
//! Nobody in the program waits for a sum, so sums yield to all other messages; sent in turn, they
//! would hold up the cool-down of the stages before, one after the other.

use std::collections::VecDeque;

use super::actor::NONE;

/// One link of one rank.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// When its last message has left.
    pub free: f64,
    /// The event that sent it.
    pub last: u32,
    /// Sums that have not left, in the order of their turns.
    waiting: VecDeque<Waiting>,
    /// Until when the time between messages has been given to sums.
    given: f64,
}

/// A sum on its way, or about to be.
#[derive(Clone, Debug)]
struct Waiting {
    event: u32,
    since: f64,
    begin: Option<f64>,
    left: f64,
}

/// A sum that has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gone {
    pub event: u32,
    pub begin: f64,
    pub end: f64,
}

impl Link {
    pub const FREE: Link = Link { free: 0.0, last: NONE, waiting: VecDeque::new(), given: 0.0 };

    /// Sends a message from `start` on, which is not before the link is free; returns the sums that
    /// have left before.
    pub fn send(&mut self, start: f64, seconds: f64, event: u32) -> Vec<Gone> {
        let gone = self.give(start);
        (self.free, self.last) = (start + seconds, event);
        gone
    }

    /// Has a sum wait for its turns from `since` on.
    pub fn wait(&mut self, since: f64, seconds: f64, event: u32) {
        self.waiting.push_back(Waiting { event, since, begin: None, left: seconds });
    }

    /// Gives all time until `until` in which nothing was sent to the sums; returns those that left.
    pub fn give(&mut self, until: f64) -> Vec<Gone> {
        let mut gone = Vec::new();
        let mut now = self.given.max(self.free);
        while let Some(sum) = self.waiting.front_mut() {
            now = now.max(sum.since);
            if now >= until {
                break;
            }
            let begin = *sum.begin.get_or_insert(now);
            let spent = sum.left.min(until - now);
            now += spent;
            sum.left -= spent;
            if sum.left > 0.0 {
                break;
            }
            gone.push(Gone { event: sum.event, begin, end: now });
            self.waiting.pop_front();
        }
        self.given = self.given.max(now.min(until));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_fill_the_gaps_between_messages() {
        let mut link = Link::FREE;
        link.wait(1.0, 2.0, 7);
        link.wait(1.0, 1.0, 8);
        assert_eq!(link.send(2.0, 3.0, 0), []);
        assert_eq!(link.send(5.5, 1.0, 1), []);
        assert_eq!(
            link.send(8.0, 1.0, 2),
            [Gone { event: 7, begin: 1.0, end: 7.0 }, Gone { event: 8, begin: 7.0, end: 8.0 },]
        );
        link.wait(20.0, 0.5, 9);
        assert_eq!(link.give(f64::INFINITY), [Gone { event: 9, begin: 20.0, end: 20.5 }]);
    }
}
