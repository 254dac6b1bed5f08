//! The curve of a figure over steps, for the terminal and as SVG.

use std::fmt::Write;

/// A curve with a dashed line to compare it with.
pub struct Plot<'a> {
    /// Heading.
    pub title: &'a str,
    /// Points in rising order of steps.
    pub points: &'a [(u64, f64)],
    /// Levels to compare with, each with its name.
    pub levels: &'a [(&'a str, f64)],
}

/// Sides of the picture in pixels, and the room left for the scales.
const SIZE: (f64, f64) = (720.0, 360.0);
const MARGIN: (f64, f64) = (56.0, 36.0);

impl Plot<'_> {
    fn finite(&self) -> impl Iterator<Item = (u64, f64)> {
        self.points.iter().copied().filter(|(_, y)| y.is_finite())
    }

    /// Lowest and highest value, levels included; a little apart if they are equal.
    fn range(&self) -> (f64, f64) {
        let values = || self.finite().map(|(_, y)| y).chain(self.levels.iter().map(|l| l.1));
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        if low < high { (low, high) } else { (low - 0.5, low + 0.5) }
    }

    fn steps(&self) -> (f64, f64) {
        let first = self.points.first().map_or(0, |p| p.0) as f64;
        let last = self.points.last().map_or(1, |p| p.0) as f64;
        (first, last.max(first + 1.0))
    }

    /// The curve in braille dots, `columns` wide and `rows` high, with the scale at the left.
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
        let points: Vec<(f64, f64)> = self.finite().map(|(s, y)| (column_of(s), y)).collect();
        for (column, y) in joined(&points) {
            dots[row_of(y)][column] = true;
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

    /// The curve as a picture of its own, readable on light and dark pages.
    pub fn svg(&self) -> String {
        let (low, high) = self.range();
        let (first, last) = self.steps();
        let ((width, height), (left, bottom)) = (SIZE, MARGIN);
        let x = |step: f64| left + (step - first) / (last - first) * (width - left - 16.0);
        let y = |value: f64| 30.0 + (high - value) / (high - low) * (height - bottom - 30.0);
        let path: Vec<String> = self
            .finite()
            .map(|(step, value)| format!("{:.1},{:.1}", x(step as f64), y(value)))
            .collect();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"{left}\" y=\"18\" font-size=\"14\" fill=\"#222\">{}</text>\n",
            self.title, self.title
        );
        for tick in 0..=4 {
            let value = low + (high - low) * f64::from(tick) / 4.0;
            let step = first + (last - first) * f64::from(tick) / 4.0;
            let (tick_y, right, base) = (y(value), width - 16.0, height - bottom);
            let _ = write!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{tick_y:.1}\" y2=\"{tick_y:.1}\" \
                 stroke=\"#ddd\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" \
                 fill=\"#444\">{value:.2}</text>\n<text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" fill=\"#444\">{step:.0}</text>\n",
                left - 6.0,
                tick_y + 4.0,
                x(step),
                base + 18.0,
            );
        }
        for (name, level) in self.levels {
            let line = y(*level);
            let _ = write!(
                svg,
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{line:.1}\" y2=\"{line:.1}\" stroke=\"#a33\" \
                 stroke-dasharray=\"6 4\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" \
                 fill=\"#a33\">{name}</text>\n",
                width - 16.0,
                width - 20.0,
                line - 5.0,
            );
        }
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.6\" \
             points=\"{}\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             fill=\"#444\">step</text>\n</svg>\n",
            path.join(" "),
            width / 2.0,
            height - 2.0,
        );
        svg
    }
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

    #[test]
    fn a_falling_curve_goes_from_top_left_to_bottom_right() {
        let points: Vec<(u64, f64)> = (1..=40).map(|n| (n, 8.0 - n as f64 / 10.0)).collect();
        let plot = Plot { title: "loss", points: &points, levels: &[("unigram", 6.0)] };
        let text = plot.terminal(20, 5);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("   7.900 │⠉"), "{text}");
        assert!(lines[5].starts_with("   4.000 │\u{2800}") && lines[5].ends_with('⣀'), "{text}");
        assert!(plot.svg().contains("<polyline"));
    }

    #[test]
    fn a_flat_or_broken_curve_is_drawn_without_complaint() {
        let points = [(1, 2.0), (2, f64::NAN), (3, 2.0)];
        let plot = Plot { title: "flat", points: &points, levels: &[] };
        assert!(plot.terminal(30, 4).contains("2.500"));
        assert!(!plot.svg().contains("NaN"));
    }
}
