//! The macro that makes a table of the spec out of one declaration.

/// Declares a table: its struct, its decoding, its known keys and its JSON Schema.
///
/// Each key has its documentation, how it is treated when missing, its name and its type:
/// - `required key: T, "example"` must be there; `Option<T>`, `None` after a report;
/// - `either key: T, "example", "other", "example"` must be there unless the other key is; `Option<T>`;
/// - `optional key: T` is nothing when missing; `Option<T>`;
/// - `preset key: At<T>, default` has a default; `At<T>`;
/// - `nested key: T` is a list or table that is empty or has its defaults when missing; `T`.
macro_rules! table {
    (
        $(#[doc = $table_doc:literal])+
        struct $table:ident {
            $(
                $(#[doc = $doc:literal])+
                $need:ident $key:ident : $type:ty $(, $extra:literal)* ;
            )+
        }
    ) => {
        $(#[doc = $table_doc])+
        #[derive(Clone, Debug)]
        pub(crate) struct $table {
            /// Where the table stands.
            #[allow(dead_code, reason = "not every table is complained about as a whole")]
            pub(crate) place: $crate::spec::problem::Place,
            present: Vec<&'static str>,
            $(
                $(#[doc = $doc])+
                pub(crate) $key: table!(@type $need $type),
            )+
        }

        impl $table {
            /// The keys, in the order of their declaration.
            pub(crate) const KEYS: &'static [&'static str] = &[$($crate::spec::raw::table::name(stringify!($key))),+];

            /// Reads the keys of a table at `place`.
            pub(crate) fn from_table(
                table: &toml::de::DeTable<'_>,
                place: $crate::spec::problem::Place,
                decoder: &mut $crate::spec::raw::decode::Decoder<'_>,
            ) -> Self {
                decoder.unknown_keys(table, &place, Self::KEYS);
                $(
                    let $key = decoder.$need(table, &place, $crate::spec::raw::table::name(stringify!($key)) $(, $extra)*);
                )+
                let known = Self::KEYS.iter().copied();
                let present = known.filter(|key| table.contains_key(*key)).collect();
                Self { place, present, $($key),+ }
            }

            /// Whether the table has the key, be its value good or not.
            #[allow(dead_code, reason = "not every table is asked")]
            pub(crate) fn has(&self, key: &str) -> bool {
                self.present.contains(&key)
            }
        }

        impl $crate::spec::raw::decode::Decode for $table {
            fn decode(
                value: &$crate::spec::raw::decode::Value<'_>,
                place: $crate::spec::problem::Place,
                decoder: &mut $crate::spec::raw::decode::Decoder<'_>,
            ) -> Option<Self> {
                let keys = $crate::spec::raw::decode::listed(Self::KEYS);
                let first = Self::KEYS.first().copied().unwrap_or_default();
                let hint = format!("write a table, as in `{{ {first} = … }}`; the keys here are {keys}");
                let table = decoder.table(value, &place, &hint)?;
                Some(Self::from_table(table, place, decoder))
            }
        }

        impl $crate::spec::raw::decode::Absent for $table {
            fn absent(
                place: $crate::spec::problem::Place,
                decoder: &mut $crate::spec::raw::decode::Decoder<'_>,
            ) -> Self {
                Self::from_table(&toml::de::DeTable::new(), place, decoder)
            }
        }

        impl schemars::JsonSchema for $table {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($table).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use $crate::spec::raw::schema::{Key, Need, docs, table};
                table(&docs(&[$($table_doc),+]), vec![$(
                    Key {
                        name: $crate::spec::raw::table::name(stringify!($key)),
                        docs: docs(&[$($doc),+]),
                        need: table!(@need $need $($extra)*),
                        schema: generator.subschema_for::<$type>(),
                    }
                ),+])
            }
        }
    };
    (@type required $type:ty) => { Option<$type> };
    (@type either $type:ty) => { Option<$type> };
    (@type optional $type:ty) => { Option<$type> };
    (@type preset $type:ty) => { $type };
    (@type nested $type:ty) => { $type };
    (@need required $example:literal) => { Need::Required };
    (@need either $example:literal $other:literal $other_example:literal) => { Need::Optional };
    (@need optional) => { Need::Optional };
    (@need preset $default:literal) => { Need::Default(serde_json::json!($default)) };
    (@need nested) => { Need::Optional };
}

/// The name of a key: that of its field, without what lets a field have the name of a word of Rust.
pub(super) const fn name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

pub(super) use table;
