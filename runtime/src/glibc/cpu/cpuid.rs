//! The CPUID instruction, asked for each leaf at most once.

/// The registers eax, ebx, ecx, edx after CPUID.
pub type Registers = [u32; 4];

/// Where CPUID leaves come from: the processor, or a recording of one.
pub trait Cpuid {
    /// The registers after CPUID with these eax and ecx.
    fn leaf(&self, leaf: u32, subleaf: u32) -> Registers;

    /// The low half of XCR0: which register states the system saves. Asked only if CPUID says OSXSAVE.
    fn xcr0(&self) -> u32;
}

/// The processor this code runs on.
#[derive(Clone, Copy, Debug)]
pub struct Processor;

impl Cpuid for Processor {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Registers {
        let registers = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [registers.eax, registers.ebx, registers.ecx, registers.edx]
    }

    fn xcr0(&self) -> u32 {
        let low: u32;
        // SAFETY: the trait's contract asks for XCR0 only where CPUID reports OSXSAVE, which is what makes XGETBV legal;
        // it touches nothing but eax and edx.
        unsafe {
            core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags))
        };
        low
    }
}

/// More leaves than are asked for on any processor known; those beyond are asked for again.
const CAPACITY: usize = 48;

/// Leaves that have been asked for, and their source. CPUID traps into the hypervisor of a virtual machine, which costs
/// some microseconds each time.
pub struct Leaves<'a> {
    source: &'a dyn Cpuid,
    known: [(u32, u32, Registers); CAPACITY],
    count: usize,
}

impl<'a> Leaves<'a> {
    /// No leaves yet.
    pub fn new(source: &'a dyn Cpuid) -> Self {
        Leaves { source, known: [(0, 0, [0; 4]); CAPACITY], count: 0 }
    }

    /// The registers after CPUID with these eax and ecx.
    pub fn get(&mut self, leaf: u32, subleaf: u32) -> Registers {
        let known = self.known.iter().take(self.count);
        if let Some((_, _, registers)) = known.into_iter().find(|known| (known.0, known.1) == (leaf, subleaf)) {
            return *registers;
        }
        let registers = self.source.leaf(leaf, subleaf);
        if let Some(free) = self.known.get_mut(self.count) {
            *free = (leaf, subleaf, registers);
            self.count += 1;
        }
        registers
    }

    /// See [`Cpuid::xcr0`].
    pub fn xcr0(&self) -> u32 {
        self.source.xcr0()
    }
}
