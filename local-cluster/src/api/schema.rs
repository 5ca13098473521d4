//! The schema that says how the parts of an object merge: that of the built-in kinds, or that of a definition.

use crate::resources::{DEFINITIONS, Resource};
use crate::schema::structural::Node;
use crate::schema::{ListShape, is_atomic_map, list_shape};

/// Where to look up how the parts of an object merge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema {
    BuiltIn,
    /// CustomResourceDefinitions: schemas have properties of any name.
    Definition,
    Custom(&'static Node),
}

impl Schema {
    pub(crate) fn of(resource: &Resource) -> Self {
        match resource.custom {
            Some(custom) => Self::Custom(&custom.schema),
            None if resource == &DEFINITIONS => Self::Definition,
            None => Self::BuiltIn,
        }
    }

    pub(crate) fn list_shape(self, path: &[&str]) -> ListShape {
        match self {
            Self::BuiltIn => list_shape(path),
            Self::Definition if matches!(path, ["metadata", ..] | ["status", "conditions"]) => {
                list_shape(path)
            }
            Self::Definition => ListShape::Atomic,
            Self::Custom(schema) => schema.list_shape(path),
        }
    }

    pub(crate) fn is_atomic_map(self, path: &[&str]) -> bool {
        match self {
            Self::BuiltIn => is_atomic_map(path),
            Self::Definition => false,
            Self::Custom(schema) => schema.is_atomic_map(path),
        }
    }
}
