//! Why a path changed.

macro_rules! reasons {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// Why a path went up or down, or another one is in use.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $text] $name = $number,)*
        }

        impl Reason {
            /// The reason of this number; [`Reason::None`] if there is none.
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::None }
            }

            /// For people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    None = 0, "nothing has happened yet";
    Missed = 1, "probes are not answered";
    Loss = 2, "too many probes are lost";
    BigLost = 3, "long packets are lost";
    Answered = 4, "probes are answered again";
    RelayDown = 5, "the relay is not reached";
    NoRelay = 6, "no path is up: the direct one is tried";
    Configured = 7, "the configuration changed";
}
