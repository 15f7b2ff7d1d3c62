//! The differences between PyTorch's names and layout and burn's.

/// The path of the tensor that a visitor or a mapper is at.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<(String, String)>);

impl Path {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_string(), container.to_string()));
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    /// PyTorch's name of the tensor at this path.
    pub(super) fn name(&self) -> String {
        let mut name = String::new();
        for (at, (part, container)) in self.0.iter().enumerate() {
            if at > 0 {
                name.push('.');
            }
            let is_last = at + 1 == self.0.len();
            name.push_str(match part.as_str() {
                // Only in these layers: a module of a user's own may have a tensor with the name `gamma`.
                "gamma" if is_last && is_normalization(container) => "weight",
                "beta" if is_last && is_normalization(container) => "bias",
                other => other,
            });
        }
        name
    }

    /// Whether this is the weight of a burn `Linear`, which has `[inputs, outputs]` and PyTorch has
    /// `[outputs, inputs]`.
    pub(super) fn is_linear_weight(&self) -> bool {
        matches!(self.0.last(), Some((name, container)) if name == "weight" && container == "Struct:Linear")
    }
}

fn is_normalization(container: &str) -> bool {
    const NORMALIZATIONS: [&str; 5] = [
        "Struct:BatchNorm",
        "Struct:LayerNorm",
        "Struct:GroupNorm",
        "Struct:InstanceNorm",
        "Struct:RmsNorm",
    ];
    NORMALIZATIONS.contains(&container)
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`, tile by tile so that both sides stay in cache.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..rows.min(row_tile + TILE) {
                for column in column_tile..columns.min(column_tile + TILE) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}
