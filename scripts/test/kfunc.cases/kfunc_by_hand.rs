// rustc: the trait `kernel::bpf::Kfunc` requires an `unsafe impl` declaration
enum ByHand {}

impl Kfunc for ByHand {
    const NAME: &'static str = "bpf_by_hand";
    const FLAGS: u32 = 0;
}
