//! Steps as a picture of their own (SVG), for pages of text and for print.
//!
//! Every box has a title, and a letter with its microbatch where it is wide enough. Colours follow
//! the reader's light or dark mode; letters and hatches say the same without them.

use std::fmt::Write;

use graphs::timeline::{Cause, Span};

use crate::view::{
    marks::{Track, fill, letter, reason, title},
    reading,
    scene::{Scene, Step},
};

/// Boxes of the largest picture: browsers are slow with more.
pub const MOST_BOXES: usize = 5_000;

/// A picture that would be too large.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{boxes} boxes are too many for an SVG of at most {MOST_BOXES}; write a page, -o FILE.html"
)]
pub struct TooMany {
    /// Boxes that it would have.
    pub boxes: usize,
}

/// Pixels: left edge of the lanes, room at the right, heights.
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const HEADING: f64 = 26.0;
const SPACE: f64 = 5.0;

/// The same colours as the page, light and dark.
const STYLE: &str = "\
text{font:11px system-ui,sans-serif;fill:#1b1f24}.h{font-weight:600;font-size:13px}\
.n{text-anchor:middle;fill:#fff}.r{text-anchor:end;font-weight:600}.g{fill:#eef0f3}\
.f0{fill:#2f6fb5}.f1{fill:#bf4f13}.f2{fill:#1f7a4d}.f3{fill:#8a4aa3}.f4{fill:#66707c}\
.p{fill:none;stroke:#0b0d10;stroke-width:1.5}#i path,#e path{stroke:#79838e}\
@media(prefers-color-scheme:dark){text{fill:#e8ebef}.n{fill:#0d0f12}.b{fill:#14171b}\
.g{fill:#21262c}\
.f0{fill:#70a8f0}.f1{fill:#f2995c}.f2{fill:#5cc490}.f3{fill:#c795e8}.f4{fill:#9aa5b2}.p{stroke:#fff}}";

/// Draws all steps below each other on one scale, with their critical paths outlined.
///
/// # Errors
///
/// [`TooMany`] boxes.
pub fn draw(scene: &Scene) -> Result<String, TooMany> {
    let spans = scene.steps.iter().flat_map(|step| &step.shown().ranks);
    let boxes: usize = spans.map(Vec::len).sum();
    if boxes > MOST_BOXES {
        return Err(TooMany { boxes });
    }
    let longest = scene.steps.iter().map(|step| step.shown().makespan()).fold(0.0, f64::max);
    let shortest = scene.steps.iter().flat_map(|step| step.shown().ranks.iter().flatten());
    let shortest = shortest.map(|span| span.end - span.start).filter(|length| *length > 0.0);
    let shortest = shortest.fold(longest, f64::min).max(f64::MIN_POSITIVE);
    // Wide enough for a letter in the shortest box, within reason.
    let width = (24.0 * longest / shortest).clamp(560.0, 1_600.0);
    let mut picture =
        Picture { scale: width / longest.max(f64::MIN_POSITIVE), y: 0.0, body: String::new() };
    scene.steps.iter().for_each(|step| picture.step(step));
    let (width, height) = (LEFT + width + RIGHT, picture.y + 8.0);
    let heading = escaped(&scene.title);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" role=\"img\">\n<title>{heading}</title>\n<style>{STYLE}</style>\n<defs>\
         <pattern id=\"i\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <path d=\"M0 6 6 0\" opacity=\".6\"/></pattern>\
         <pattern id=\"e\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <path d=\"M3 2v2\" opacity=\".8\"/></pattern></defs>\n\
         <rect class=\"b\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        picture.body
    ))
}

/// A picture being drawn from top to bottom.
struct Picture {
    /// Pixels of a unit of time.
    scale: f64,
    /// Where the next lane begins.
    y: f64,
    body: String,
}

impl Picture {
    fn step(&mut self, step: &Step) {
        let shown = step.shown();
        let makespan = shown.makespan();
        let (name, idle) = (escaped(&step.name), 100.0 * step.idle());
        let time = step.unit.words(makespan);
        let _ = writeln!(
            self.body,
            "<text class=\"h\" x=\"{LEFT}\" y=\"{:.1}\">{name}: {time}, {idle:.1} % idle</text>",
            self.y + 18.0
        );
        self.y += HEADING;
        let path = reading::critical_path(shown);
        for (rank, spans) in shown.ranks.iter().enumerate() {
            let on_path: Vec<usize> =
                path.iter().filter(|(own, _)| *own == rank).map(|(_, place)| *place).collect();
            self.rank(step, rank, spans, &on_path);
        }
        self.y += SPACE;
    }

    fn rank(&mut self, step: &Step, rank: usize, spans: &[Span], path: &[usize]) {
        let _ = writeln!(
            self.body,
            "<text class=\"r\" x=\"{}\" y=\"{:.1}\">r{rank}</text>",
            LEFT - 8.0,
            self.y + 15.0
        );
        for track in Track::ALL {
            let places: Vec<usize> =
                (0..spans.len()).filter(|&place| Track::of(&spans[place]) == track).collect();
            if places.is_empty() {
                continue;
            }
            let height = if matches!(track, Track::Compute | Track::Experts) { 22.0 } else { 9.0 };
            if track == Track::Compute {
                self.gaps(step, spans, height);
            }
            places.iter().for_each(|&place| self.span(step, &spans[place], height));
            for &place in path.iter().filter(|place| places.contains(place)) {
                self.outline(&spans[place], height);
            }
            self.y += height + 1.0;
        }
        self.y += SPACE;
    }

    /// Idle times, hatched while the rank waits and dotted at the ends of the step.
    fn gaps(&mut self, step: &Step, spans: &[Span], height: f64) {
        for gap in reading::gaps(spans, step.shown().makespan()) {
            let ends = matches!(gap.cause, Cause::WarmUp | Cause::CoolDown);
            let pattern = if ends { "e" } else { "i" };
            let (x, width) = self.extent(gap.start, gap.end);
            let time = step.unit.words(gap.end - gap.start);
            let _ = writeln!(
                self.body,
                "<g><title>idle {time}: {}</title><rect class=\"g\" x=\"{x:.1}\" y=\"{y:.1}\" \
                 width=\"{width:.1}\" height=\"{height}\"/><rect fill=\"url(#{pattern})\" \
                 x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/></g>",
                reason(gap.cause),
                y = self.y,
            );
        }
    }

    fn span(&mut self, step: &Step, span: &Span, height: f64) {
        let (x, width) = self.extent(span.start, span.end);
        let task = span.task;
        let (name, time) = (title(task), step.unit.words(span.end - span.start));
        let _ = write!(
            self.body,
            "<g><title>{name}, {time}</title><rect class=\"f{}\" x=\"{x:.1}\" y=\"{:.1}\" \
             width=\"{width:.1}\" height=\"{height}\"/>",
            fill(task.kind),
            self.y,
        );
        let full = format!("{}{}", letter(task.kind), task.microbatch);
        let text = match width {
            width if 7.0 * full.len() as f64 <= width => full,
            width if 9.0 <= width => letter(task.kind).to_string(),
            _ => String::new(),
        };
        if !text.is_empty() && height > 12.0 {
            let (x, y) = (x + width / 2.0, self.y + height / 2.0 + 4.0);
            let _ = write!(self.body, "<text class=\"n\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
        }
        self.body += "</g>\n";
    }

    fn outline(&mut self, span: &Span, height: f64) {
        let (x, width) = self.extent(span.start, span.end);
        let _ = writeln!(
            self.body,
            "<rect class=\"p\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\"/>",
            x + 0.8,
            self.y + 0.8,
            (width - 1.6).max(0.5),
            height - 1.6
        );
    }

    /// Left edge and width in pixels, with a hair between neighbours.
    fn extent(&self, start: f64, end: f64) -> (f64, f64) {
        (LEFT + start * self.scale, ((end - start) * self.scale - 0.8).max(0.4))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use graphs::{
        bare::Bare,
        csv,
        simulate::{Costs, timeline},
    };

    use super::*;
    use crate::view::scene::Unit;

    fn scene(text: &str) -> Scene {
        let bare = Bare::new(csv::read(text).unwrap()).unwrap();
        let costs =
            Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
        let step = Step {
            name: "a < b".into(),
            unit: Unit::Units,
            timeline: timeline(&bare, &costs).unwrap(),
            measured: None,
            memory: None,
            stages: Vec::new(),
            facts: Vec::new(),
        };
        Scene { title: "two ranks".into(), steps: vec![step], origin: Vec::new() }
    }

    #[test]
    fn each_span_is_a_titled_box_and_each_gap_says_its_cause() {
        let svg = draw(&scene("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1")).unwrap();
        assert_eq!(svg.matches("<title>").count(), 1 + 8 + 4, "{svg}");
        for part in [">F1</text>", ">X0</text>", "idle 1 unit: warm-up", "a &lt; b", "cool-down"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        let path = svg.matches("class=\"p\"").count();
        assert_eq!(path, 6, "F0, F0, X0, X0 and so on to the end: {svg}");
    }

    #[test]
    fn a_picture_of_too_many_boxes_is_refused() {
        let row: Vec<String> = (0..2_501).map(|mb| format!("0F{mb},0B{mb}")).collect();
        let refused = draw(&scene(&row.join(","))).unwrap_err();
        assert_eq!(refused, TooMany { boxes: 5_002 });
        assert!(refused.to_string().contains("-o FILE.html"));
    }
}
