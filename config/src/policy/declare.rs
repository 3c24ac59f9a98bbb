//! The declaration of a list of policies.

/// Declares a list of policies: the struct `Name` with what a route has of each, and the struct `RawName` with what one
/// level of the file says, which tables take in by `with`.
///
/// ```text
/// policies! {
///     /// What the list is for.
///     Name, RawName, "[header]" {             // the table whose section of the reference describes the keys
///         /// What the key does.
///         policy field: Type = "key" as KindThatIsAPolicy;
///         planned field: Type;                // no key yet; the field has its default
///     }
/// }
/// ```
macro_rules! policies {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $raw:ident, $home:literal {
            $(
                $(#[doc = $field_doc:literal])*
                $mode:ident $field:ident: $ty:ty $(= $key:literal as $kind:ty)?;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $(
                #[doc = policies!(@doc $field $(, $key)?)]
                $(#[doc = $field_doc])*
                pub $field: $ty,
            )+
        }

        #[doc = concat!("What one level of the file says of [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Default)]
        #[allow(dead_code, reason = "a planned field holds nothing")]
        pub(crate) struct $raw {
            $( $field: policies!(@raw $($kind)?), )+
        }

        impl $crate::decode::field_group::FieldGroup for $raw {
            fn read(
                reader: &$crate::decode::reader::TableReader<'_, '_>,
                cx: &mut $crate::decode::decoder::Decoder<'_>,
            ) -> Self {
                Self { $( $field: policies!(@read reader, cx $(, $key, $kind)?), )+ }
            }

            fn fields() -> Vec<$crate::decode::shape::FieldInfo> {
                let fields = [$( policies!(@info $home, ($($field_doc),*) $(, $key, $kind)?), )+];
                fields.into_iter().flatten().collect()
            }
        }

        impl $name {
            /// Combines what the levels of a place say, the lowest first.
            pub(crate) fn combine(
                levels: &[$crate::policy::level::Level<'_, $raw>],
                place: &$crate::policy::level::Place<'_>,
                cx: &mut $crate::decode::decoder::Decoder<'_>,
            ) -> Self {
                Self {
                    $( $field: policies!(@combine $raw, $field, levels, place, cx $(, $key, $kind)?), )+
                }
            }
        }
    };
    (@doc $field:ident, $key:literal) => { concat!("`", $key, "`.") };
    (@doc $field:ident) => { concat!("`", stringify!($field), "`: no key sets it yet.") };
    (@raw $kind:ty) => {
        Option<
            $crate::decode::decoder::Spanned<
                Option<<$kind as $crate::decode::kind::ValueKind>::Value>,
            >,
        >
    };
    (@raw) => { () };
    (@read $reader:ident, $cx:ident, $key:literal, $kind:ty) => {
        $reader.optional::<
            $crate::decode::kinds::SpannedKind<$crate::decode::kinds::OrOff<$kind>>,
        >($key, $cx)
    };
    (@read $reader:ident, $cx:ident) => { () };
    (@info $home:literal, ($($doc:literal),+), $key:literal, $kind:ty) => {
        Some($crate::decode::shape::FieldInfo {
            key: $key,
            doc: concat!($($doc),+),
            shape: <$crate::decode::kinds::OrOff<$kind> as $crate::decode::kind::ValueKind>::shape(),
            required: false,
            default: None,
            home: Some($home),
        })
    };
    (@info $home:literal, ()) => { None };
    (@combine $raw:ident, $field:ident, $levels:ident, $place:ident, $cx:ident, $key:literal, $kind:ty) => {
        $crate::policy::level::combine::<$raw, $kind>(
            $key, $levels, |raw| raw.$field.as_ref(), $place, $cx,
        )
    };
    (@combine $raw:ident, $field:ident, $levels:ident, $place:ident, $cx:ident) => {
        Default::default()
    };
}

pub(crate) use policies;
