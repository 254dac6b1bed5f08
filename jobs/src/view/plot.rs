//! The curves of figures over steps, for the terminal and as SVG.

use std::fmt::Write;

/// Curves in one picture, with dashed lines to compare them with.
pub struct Plot<'a> {
    /// Heading.
    pub title: &'a str,
    /// The curves, from back to front.
    pub curves: &'a [Curve<'a>],
    /// Levels to compare with, each with its name.
    pub levels: &'a [(&'a str, f64)],
}

/// One figure over steps.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// What the legend calls it; empty: it is not in the legend.
    pub name: &'a str,
    /// Points in rising order of steps.
    pub points: &'a [(u64, f64)],
}

/// Sides of the picture in pixels, and the room left around the curves.
const SIZE: (f64, f64) = (720.0, 360.0);
const LEFT: f64 = 56.0;
const RIGHT: f64 = 704.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 318.0;

/// Colours of curves, told apart by people who see no red and on paper without colour.
const COLOURS: [&str; 4] = ["#1f5fa8", "#d98324", "#4d9078", "#7a4b8c"];

impl Plot<'_> {
    fn finite(&self) -> impl Iterator<Item = (u64, f64)> {
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        points.filter(|(_, y)| y.is_finite())
    }

    /// Lowest and highest value, levels included; a little apart if they are equal.
    fn range(&self) -> (f64, f64) {
        let values = || self.finite().map(|(_, y)| y).chain(self.levels.iter().map(|l| l.1));
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        if low < high { (low, high) } else { (low - 0.5, low + 0.5) }
    }

    fn steps(&self) -> (f64, f64) {
        let steps = || self.curves.iter().flat_map(|curve| curve.points).map(|point| point.0);
        let (first, last) = (steps().min().unwrap_or(0) as f64, steps().max().unwrap_or(1) as f64);
        (first, last.max(first + 1.0))
    }

    /// The curves in braille dots, `columns` wide and `rows` high, with the scale at the left.
    pub fn terminal(&self, columns: usize, rows: usize) -> String {
        let (low, high) = self.range();
        let (first, last) = self.steps();
        let mut dots = vec![vec![false; columns * 2]; rows * 4];
        let row_of = |y: f64| ((high - y) / (high - low) * (rows * 4 - 1) as f64).round() as usize;
        for (_, level) in self.levels {
            (0..columns * 2).step_by(4).for_each(|column| dots[row_of(*level)][column] = true);
        }
        let column_of =
            |step: u64| (step as f64 - first) / (last - first) * (columns * 2 - 1) as f64;
        for curve in self.curves {
            let finite = curve.points.iter().filter(|(_, y)| y.is_finite());
            let points: Vec<(f64, f64)> = finite.map(|(step, y)| (column_of(*step), *y)).collect();
            for (column, y) in joined(&points) {
                dots[row_of(y)][column] = true;
            }
        }
        let mut text = format!("{}\n", self.title);
        for row in 0..rows {
            let scale = match row {
                0 => format!("{high:8.3}"),
                _ if row + 1 == rows => format!("{low:8.3}"),
                _ => " ".repeat(8),
            };
            let line: String = (0..columns).map(|column| cell(&dots, row, column)).collect();
            let _ = writeln!(text, "{scale} │{}", line.trim_end_matches('\u{2800}'));
        }
        let _ = writeln!(text, "{:9}└{}", "", "─".repeat(columns));
        let _ = writeln!(text, "{:10}step {first:<8}{last:>w$}", "", w = columns - 13);
        for (name, level) in self.levels {
            let _ = writeln!(text, "{:10}dashed: {name}, {level:.3}", "");
        }
        text
    }

    /// The curves as a picture of its own, readable on light and dark pages.
    pub fn svg(&self) -> String {
        let (width, height) = SIZE;
        let title = self.title;
        let frame = Frame { steps: self.steps(), values: self.range() };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{title}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"14\" fill=\"#222\">{title}</text>\n"
        );
        svg.extend([self.legend(), frame.grid()]);
        svg.extend(self.levels.iter().map(|(name, level)| frame.level(name, *level)));
        svg.extend(self.coloured().map(|(curve, colour)| frame.line(curve, colour)));
        svg + "</svg>\n"
    }

    fn coloured(&self) -> impl DoubleEndedIterator<Item = (&Curve<'_>, &'static str)> {
        let colour = |number: usize| COLOURS[number % COLOURS.len()];
        (0..self.curves.len()).map(move |number| (&self.curves[number], colour(number)))
    }

    /// Names of the curves in their colours, from the right end of the heading to the left.
    fn legend(&self) -> String {
        let mut right = RIGHT;
        let mut svg = String::new();
        for (curve, colour) in self.coloured().rev() {
            let name = curve.name;
            if name.is_empty() {
                continue;
            }
            let _ = writeln!(
                svg,
                "<text x=\"{right}\" y=\"18\" text-anchor=\"end\" \
                 fill=\"{colour}\">━ {name}</text>"
            );
            // No page tells how wide a text will be: letters are seldom wider than this.
            right -= 40.0 + 6.5 * name.chars().count() as f64;
        }
        svg
    }
}

/// Where steps and values lie in the picture.
struct Frame {
    steps: (f64, f64),
    values: (f64, f64),
}

impl Frame {
    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.steps.0) / (self.steps.1 - self.steps.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (self.values.1 - value) / (self.values.1 - self.values.0) * (BOTTOM - TOP)
    }

    /// Thin lines at round values, round steps below, and what they count.
    fn grid(&self) -> String {
        let (digits, values) = ticks(self.values);
        let mut svg = String::new();
        for value in values {
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                 stroke=\"#e4e4e4\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" \
                 fill=\"#444\">{value:.digits$}</text>",
                LEFT - 8.0,
                y + 4.0,
            );
        }
        for step in ticks(self.steps).1.into_iter().filter(|step| step.fract() == 0.0) {
            let (x, y) = (self.x(step), BOTTOM + 18.0);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#444\">{step}</text>"
            );
        }
        let (x, y) = ((LEFT + RIGHT) / 2.0, BOTTOM + 36.0);
        svg + &format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#444\">step</text>\n"
        )
    }

    /// A dashed line with its name above its left end.
    fn level(&self, name: &str, level: f64) -> String {
        let y = self.y(level);
        format!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#a33\" \
             stroke-dasharray=\"6 4\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#a33\">{name}</text>\n",
            LEFT + 6.0,
            y - 6.0,
        )
    }

    fn line(&self, curve: &Curve, colour: &str) -> String {
        let finite = curve.points.iter().filter(|(_, value)| value.is_finite());
        let at = |(step, value): &(u64, f64)| {
            format!("{:.1},{:.1}", self.x(*step as f64), self.y(*value))
        };
        let points = finite.map(at).collect::<Vec<_>>().join(" ");
        format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" \
             stroke-linejoin=\"round\" points=\"{points}\"/>\n"
        )
    }
}

/// Round values within a range, at most eight, and the digits after the point that they need.
fn ticks((low, high): (f64, f64)) -> (usize, Vec<f64>) {
    let power = 10_f64.powf(((high - low) / 8.0).log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| high - low <= 8.0 * factor * power);
    let step = factor.unwrap_or(10.0) * power;
    let numbers = (low / step).ceil() as i64..=(high / step).floor() as i64;
    let digits = (-step.log10().floor()).max(0.0) as usize;
    (digits, numbers.map(|number| number as f64 * step).collect())
}

/// The points, and those on the lines between them, one for each column of dots.
fn joined(points: &[(f64, f64)]) -> Vec<(usize, f64)> {
    let own = points.iter().map(|(x, y)| (x.round() as usize, *y));
    let between = points.windows(2).flat_map(|pair| {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let columns = x0.ceil() as usize..=x1.floor() as usize;
        let width = (x1 - x0).max(f64::MIN_POSITIVE);
        columns.map(move |x| (x, y0 + (y1 - y0) * ((x as f64 - x0) / width).clamp(0.0, 1.0)))
    });
    own.chain(between).collect()
}

/// One braille character: two dots wide, four high.
fn cell(dots: &[Vec<bool>], row: usize, column: usize) -> char {
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let mut bits = 0;
    for (down, pair) in BITS.iter().enumerate() {
        for (right, bit) in pair.iter().enumerate() {
            if dots[row * 4 + down][column * 2 + right] {
                bits |= bit;
            }
        }
    }
    char::from_u32(0x2800 + bits).expect("braille patterns are characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(u64, f64)]) -> Curve<'_> {
        Curve { name: "", points }
    }

    #[test]
    fn a_falling_curve_goes_from_top_left_to_bottom_right() {
        let points: Vec<(u64, f64)> = (1..=40).map(|n| (n, 8.0 - n as f64 / 10.0)).collect();
        let plot = Plot { title: "loss", curves: &[curve(&points)], levels: &[("unigram", 6.0)] };
        let text = plot.terminal(20, 5);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("   7.900 │⠉"), "{text}");
        assert!(lines[5].starts_with("   4.000 │\u{2800}") && lines[5].ends_with('⣀'), "{text}");
        assert!(plot.svg().contains("<polyline"));
    }

    #[test]
    fn a_flat_or_broken_curve_is_drawn_without_complaint() {
        let points = [(1, 2.0), (2, f64::NAN), (3, 2.0)];
        let plot = Plot { title: "flat", curves: &[curve(&points)], levels: &[] };
        assert!(plot.terminal(30, 4).contains("2.500"));
        assert!(!plot.svg().contains("NaN"));
    }

    #[test]
    fn several_curves_share_one_scale_and_are_named_in_their_colours() {
        let (low, high) = ([(1, 0.0), (3, 10.0)], [(2, 20.0), (5, 40.0)]);
        let curves = [Curve { name: "low", points: &low }, Curve { name: "high", points: &high }];
        let svg = Plot { title: "two", curves: &curves, levels: &[] }.svg();
        assert!(svg.contains("points=\"56.0,318.0 380.0,247.0\""), "{svg}");
        assert!(svg.contains("points=\"218.0,176.0 704.0,34.0\""), "{svg}");
        let name = |name: &str, colour| format!("fill=\"{colour}\">━ {name}<");
        assert!(svg.contains(&name("low", COLOURS[0])) && svg.contains(&name("high", COLOURS[1])));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks((0.6, 32.4)), (0, vec![5.0, 10.0, 15.0, 20.0, 25.0, 30.0]));
        assert_eq!(ticks((-0.1, 0.3)).0, 2);
        assert_eq!(ticks((1.0, 200.0)).1.len(), 4);
    }
}
