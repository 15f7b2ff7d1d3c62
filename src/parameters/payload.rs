//! What a payload is: a named set of values that a report carries, or that a model version offers.

use serde::{Deserialize, Serialize};

use super::{Encoding, Role};

/// The type of a payload's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DType {
    /// 32-bit floats, the only ones that an [`Encoding`] other than f32 is for. Must be finite.
    #[default]
    F32,
    /// 64-bit floats. Must be finite.
    F64,
    /// Unsigned 32-bit integers.
    U32,
    /// Unsigned 64-bit integers.
    U64,
}

impl DType {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F64 | Self::U64 => 8,
        }
    }
}

/// Which tensors of the model a payload has: those of these roles. In JSON a list, such as `["trainable", "buffer"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "http", schema(value_type = Vec<Role>))]
#[serde(into = "Vec<Role>", from = "Vec<Role>")]
pub struct Roles(u8);

impl Roles {
    /// What local training changes: trainable tensors and buffers. A delta's.
    pub const TRAINED: Self = Self(0b011);
    /// What the optimizer changes. A control variate's, for example.
    pub const TRAINABLE: Self = Self(0b001);
    /// Frozen tensors, which a worker fetches once.
    pub const FROZEN: Self = Self(0b100);
    /// All tensors: a whole model's.
    pub const ALL: Self = Self(0b111);

    /// Whether tensors of this role are in the payload.
    pub fn contains(self, role: Role) -> bool {
        self.0 & Self::bit(role) != 0
    }

    fn bit(role: Role) -> u8 {
        match role {
            Role::Trainable => 0b001,
            Role::Buffer => 0b010,
            Role::Frozen => 0b100,
        }
    }
}

impl From<Vec<Role>> for Roles {
    fn from(roles: Vec<Role>) -> Self {
        let bits = roles
            .into_iter()
            .fold(0, |bits, role| bits | Self::bit(role));
        Self(bits)
    }
}

impl From<Roles> for Vec<Role> {
    fn from(roles: Roles) -> Self {
        let all = [Role::Trainable, Role::Buffer, Role::Frozen];
        all.into_iter()
            .filter(|role| roles.contains(*role))
            .collect()
    }
}

/// The shape of a payload. In JSON `{"model": ["trainable", "buffer"]}` or `{"vector": 12}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Shape {
    /// The model's own tensors of these roles: names, shapes and order are the layout's.
    Model(Roles),
    /// One tensor, named `vector`, with this many values.
    Vector(usize),
}

/// The name of the one tensor of a [`Shape::Vector`].
pub const VECTOR: &str = "vector";

/// A payload as a plan asks for it: its name, its shape, and how its values travel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PayloadSpec {
    /// Its name: 1 to 64 ASCII letters, digits, `_`, `-` and `.`. In a body, `NAME/` is in front of each tensor's name.
    pub name: String,
    /// Which tensors it has.
    pub shape: Shape,
    /// The type of its values.
    #[serde(default)]
    pub dtype: DType,
    /// How the values of trainable tensors travel; buffers and vectors always travel as they are. Other types than f32 have no
    /// encoding but `f32`, which means "as they are".
    #[serde(default)]
    pub encoding: Encoding,
}

/// The longest name of a payload, in bytes.
pub const LONGEST_PAYLOAD_NAME: usize = 64;

impl PayloadSpec {
    /// A payload of the model's tensors of these roles, in f32.
    pub fn model(name: impl Into<String>, roles: Roles) -> Self {
        Self {
            name: name.into(),
            shape: Shape::Model(roles),
            dtype: DType::F32,
            encoding: Encoding::F32,
        }
    }

    /// A payload of one tensor with this many values.
    pub fn vector(name: impl Into<String>, len: usize, dtype: DType) -> Self {
        Self {
            name: name.into(),
            shape: Shape::Vector(len),
            dtype,
            encoding: Encoding::F32,
        }
    }

    /// The same with values of another type.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The same in an encoding.
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Checks what can be checked without the model.
    ///
    /// # Errors
    ///
    /// What is wrong, in words: a name that can't be in a body, or an encoding that the type or the shape does not have.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if name.is_empty() || name.len() > LONGEST_PAYLOAD_NAME || !name.bytes().all(is_name_byte) {
            return Err(format!(
                "{name:?} is not a payload's name: use 1 to {LONGEST_PAYLOAD_NAME} letters, digits, '_', '-' and '.'"
            ));
        }
        let is_plain_f32 = self.encoding == Encoding::F32;
        if self.dtype != DType::F32 && !is_plain_f32 {
            return Err(format!(
                "payload {name:?} has values of {:?}, which can't be encoded as {}: use f32, which means as they are",
                self.dtype, self.encoding
            ));
        }
        if matches!(self.shape, Shape::Vector(_)) && !is_plain_f32 {
            return Err(format!(
                "payload {name:?} is a vector, which can't be encoded as {}: use f32, which means as they are",
                self.encoding
            ));
        }
        Ok(())
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_as_the_protocol_says() {
        let delta = PayloadSpec::model("delta", Roles::TRAINED).with_encoding(Encoding::Int8);
        let text = r#"{"name":"delta","shape":{"model":["trainable","buffer"]},"dtype":"f32","encoding":"int8"}"#;
        assert_eq!(serde_json::to_string(&delta).unwrap(), text);
        assert_eq!(serde_json::from_str::<PayloadSpec>(text).unwrap(), delta);
        let short = r#"{"name":"counts","shape":{"vector":3},"dtype":"u64"}"#;
        let counts = PayloadSpec::vector("counts", 3, DType::U64);
        assert_eq!(serde_json::from_str::<PayloadSpec>(short).unwrap(), counts);
    }

    #[test]
    fn names_and_encodings_that_can_not_be_are_told() {
        for name in ["", "a/b", "ä", "@x", &"n".repeat(65)] {
            assert!(PayloadSpec::vector(name, 1, DType::F32).check().is_err());
        }
        let half = |spec: PayloadSpec| spec.with_encoding(Encoding::F16).check();
        assert!(half(PayloadSpec::vector("a", 1, DType::F32)).is_err());
        assert!(half(PayloadSpec::model("a", Roles::TRAINABLE).with_dtype(DType::U32)).is_err());
        assert!(half(PayloadSpec::model("a", Roles::TRAINABLE)).is_ok());
    }
}
