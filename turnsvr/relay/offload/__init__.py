"""Programs in the kernel that carry bound channels below a pump. README.md tells the theory."""
