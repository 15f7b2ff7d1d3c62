"""The energy of one NVIDIA GPU from its driver's library, without a package: a second reading beside the program's own."""

import ctypes


class Nvml:
    """NVML, initialised. An `OSError` says why there is no driver, or no GPU."""

    def __init__(self):
        try:
            self.library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise OSError(f"there is no NVIDIA driver: {error}") from error
        self.check("nvmlInit_v2")
        count = ctypes.c_uint()
        self.check("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if count.value == 0:
            raise OSError("the NVIDIA driver shows no GPU")
        self.gpu = None

    def check(self, function, *arguments):
        code = getattr(self.library, function)(*arguments)
        if code != 0:
            self.library.nvmlErrorString.restype = ctypes.c_char_p
            raise OSError(f"{function}: {self.library.nvmlErrorString(code).decode()}")

    def choose(self, uuid):
        """The GPU of this UUID is the one that is measured."""
        self.gpu = ctypes.c_void_p()
        self.check("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self.gpu))

    def joules(self):
        """What the GPU has spent since its driver was loaded; none if that is not counted."""
        if self.gpu is None:
            return None
        millijoules = ctypes.c_ulonglong()
        try:
            self.check("nvmlDeviceGetTotalEnergyConsumption", self.gpu, ctypes.byref(millijoules))
        except OSError:
            return None
        return millijoules.value / 1000


class NoNvml:
    """What a check of CPUs has."""

    def joules(self):
        return None
