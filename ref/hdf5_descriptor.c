/* An HDF5 file driver that reads a descriptor which is open already: libhdf5's own would open the
 * file by its name, which the sandbox that it runs in does not let it do. */
#include "reader_internal.h"

#include <errno.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

typedef struct descriptor_file {
    H5FD_t shared; /* first: HDF5 knows the file by it */
    int descriptor;
    haddr_t end_of_file, end_of_addresses;
} descriptor_file;

/* What H5Pset_driver is given. The size is asked for before the sandbox closes, in which there is
 * no fstat. */
typedef struct descriptor_info {
    int descriptor;
    haddr_t size;
} descriptor_info;

static H5FD_t *open_descriptor(const char *name, unsigned flags, hid_t access, haddr_t most)
{
    const descriptor_info *info = H5Pget_driver_info(access);
    (void)name;
    (void)most;
    if (!info || flags & H5F_ACC_RDWR)
        return NULL;
    descriptor_file *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->descriptor = info->descriptor;
    file->end_of_file = info->size;
    return &file->shared;
}

static herr_t close_descriptor(H5FD_t *shared)
{
    free(shared); /* the descriptor is its opener's */
    return 0;
}

static herr_t query(const H5FD_t *shared, unsigned long *features)
{
    (void)shared;
    *features = H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_METADATA;
    return 0;
}

static haddr_t end_of_addresses(const H5FD_t *shared, H5FD_mem_t type)
{
    (void)type;
    return ((const descriptor_file *)shared)->end_of_addresses;
}

static herr_t set_end_of_addresses(H5FD_t *shared, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((descriptor_file *)shared)->end_of_addresses = address;
    return 0;
}

static haddr_t end_of_file(const H5FD_t *shared, H5FD_mem_t type)
{
    (void)type;
    return ((const descriptor_file *)shared)->end_of_file;
}

/* As libhdf5's own driver: what lies past the end reads as zeros. */
static herr_t read_at(H5FD_t *shared, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size,
                      void *buffer)
{
    const descriptor_file *file = (const descriptor_file *)shared;
    unsigned char *to = buffer;
    (void)type;
    (void)transfer;
    if (address == HADDR_UNDEF || address > INT64_MAX - size)
        return -1;
    for (ssize_t got; size > 0; to += got, address += (haddr_t)got, size -= (size_t)got) {
        got = pread(file->descriptor, to, size, (off_t)address);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got < 0)
            return -1;
        else if (got == 0) {
            memset(to, 0, size);
            return 0;
        }
    }
    return 0;
}

static herr_t refuse_write(H5FD_t *shared, H5FD_mem_t type, hid_t transfer, haddr_t address,
                           size_t size, const void *buffer)
{
    (void)shared;
    (void)type;
    (void)transfer;
    (void)address;
    (void)size;
    (void)buffer;
    return -1;
}

static const H5FD_class_t driver = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)600, /* outside HDF5's own, which end at 511 */
#endif
    .name = "gemma4_descriptor",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(descriptor_info),
    .open = open_descriptor,
    .close = close_descriptor,
    .query = query,
    .get_eoa = end_of_addresses,
    .set_eoa = set_end_of_addresses,
    .get_eof = end_of_file,
    .read = read_at,
    .write = refuse_write,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

/* Set before the sandbox closes. */
static hid_t driver_id = H5I_INVALID_HID;
static descriptor_info the_file;

int gemma4_hdf5_descriptor_prepare(int file)
{
    struct stat status;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (fstat(file, &status) || H5open() < 0)
        return -1;
    the_file = (descriptor_info){file, (haddr_t)status.st_size};
    driver_id = H5FDregister(&driver);
    return driver_id < 0 ? -1 : 0;
}

hid_t gemma4_hdf5_descriptor_access(int file)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && file == the_file.descriptor &&
        H5Pset_driver(access, driver_id, &the_file) >= 0)
        return access;
    H5Pclose(access);
    return H5I_INVALID_HID;
}
