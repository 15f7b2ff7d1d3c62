//! Lines with axes and a legend, as SVG or PNG.

use std::sync::Once;

use plotters::{
    backend::{BitMapBackend, SVGBackend},
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, PathElement},
    prelude::DrawingBackend,
    series::LineSeries,
    style::{BLACK, Color, FontStyle, RGBColor, ShapeStyle, TRANSPARENT, WHITE, register_font},
};

use crate::cli::export::Point;

/// Colours that people with any colour vision can tell apart (Okabe and Ito, "Color Universal Design", 2008).
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(240, 228, 66),
];
/// The Latin letters of DejaVu Sans: a PNG needs a font, wherever it is drawn. See `LICENSE-DejaVu.txt`.
const FONT: &[u8] = include_bytes!("DejaVuSans-latin.ttf");
const FAMILY: &str = "sans-serif";

/// The curves of one metric.
#[derive(Debug)]
pub(super) struct Panel {
    pub metric: String,
    pub curves: Vec<Curve>,
}

/// A run's curve.
#[derive(Debug)]
pub(super) struct Curve {
    pub name: String,
    /// The run's number: it has one colour in all parts.
    pub color: usize,
    /// At least one, in order of rounds.
    pub points: Vec<Point>,
}

/// Parts below each other.
pub(super) struct Picture {
    pub width: u32,
    /// Of each part.
    pub height: u32,
    pub panels: Vec<Panel>,
}

impl Picture {
    fn size(&self) -> (u32, u32) {
        (self.width, self.height * self.panels.len().max(1) as u32)
    }

    /// The picture as SVG.
    pub fn svg(&self) -> Result<String, String> {
        let mut text = String::new();
        let backend = SVGBackend::with_string(&mut text, self.size());
        self.draw(backend.into_drawing_area())?;
        Ok(text)
    }

    /// The picture as PNG.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = self.size();
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
        self.draw(backend.into_drawing_area())?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let writer = encoder.write_header();
        writer
            .and_then(|mut writer| writer.write_image_data(&pixels))
            .map_err(|error| error.to_string())?;
        Ok(file)
    }

    fn draw<B: DrawingBackend>(&self, area: DrawingArea<B, Shift>) -> Result<(), String> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // It is a font: the tests draw with it.
            let _ = register_font(FAMILY, FontStyle::Normal, FONT);
        });
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let parts = area.split_evenly((self.panels.len().max(1), 1));
        for (panel, part) in self.panels.iter().zip(&parts) {
            panel.draw(part)?;
        }
        area.present().map_err(|error| error.to_string())
    }
}

impl Panel {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let rounds = span(points.clone().map(|point| point.round as f64), 0.0);
        let values = span(points.map(|point| point.value), 0.05);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(rounds.0..rounds.1, values.0..values.1)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .x_desc("round")
            .y_desc(&self.metric)
            .axis_desc_style((FAMILY, 16))
            .label_style((FAMILY, 14))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_label_formatter(&|round| format!("{round:.0}"))
            .y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6))
            .draw()
            .map_err(|error| error.to_string())?;
        for curve in &self.curves {
            let color = COLORS[curve.color % COLORS.len()];
            let style = ShapeStyle::from(color).stroke_width(2);
            let line = curve
                .points
                .iter()
                .map(|point| (point.round as f64, point.value));
            chart
                .draw_series(LineSeries::new(line, style))
                .map_err(|error| error.to_string())?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            // A line of one point can't be seen.
            if let [only] = &curve.points[..] {
                let dot = Circle::new((only.round as f64, only.value), 4, color.filled());
                chart
                    .draw_series([dot])
                    .map_err(|error| error.to_string())?;
            }
        }
        chart
            .configure_series_labels()
            .position(self.legend_place((values.0 + values.1) / 2.0))
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FAMILY, 14))
            .draw()
            .map_err(|error| error.to_string())
    }
}

impl Panel {
    /// At the right end, where the curves are not: most end above or below the middle.
    fn legend_place(&self, middle: f64) -> SeriesLabelPosition {
        let last = self.curves.iter().filter_map(|curve| curve.points.last());
        let above = last.filter(|point| point.value > middle).count();
        if 2 * above > self.curves.len() {
            SeriesLabelPosition::LowerRight
        } else {
            SeriesLabelPosition::UpperRight
        }
    }
}

/// The least and the greatest of these values, with a margin that is this share of their distance; never empty.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        least = least.min(value);
        most = most.max(value);
    }
    if least < most {
        let margin = margin * (most - least);
        return (least - margin, most + margin);
    }
    if least.is_finite() {
        return (least - 0.5, least + 0.5);
    }
    (0.0, 1.0)
}
