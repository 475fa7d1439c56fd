// Times to save at: number `s` of sample `b`, and which of two comes later in the direction of a sample.
const Real* ts = (const Real*)ptr[0];
const int64_t saves = size[4], time_stride = size[5], batch_stride = size[6];
const Real* directions = (const Real*)ptr[1];
auto time_of = [&](int64_t s, int64_t b) { return ts[s * time_stride + b * batch_stride]; };
auto after = [&](Real a, Real b, Real direction) { return direction * a > direction * b; };
// The times of a group of samples as running forwards, after one that is past and before one that never comes; in one
// column where all samples share them.
bool share = batch_stride == 0;
for (int64_t b = begin; b < end && share; ++b) share = directions[b] == directions[begin];
const int32_t columns = share ? 1 : W;
Real* const line = (Real*)std::malloc((saves + 2) * columns * sizeof(Real));
auto fill_line = [&](const int64_t* sample) {
    for (int l = 0; l < columns; ++l) {
        line[l] = -INFINITY;
        line[(saves + 1) * columns + l] = INFINITY;
        for (int64_t s = 0; s < saves; ++s) line[(s + 1) * columns + l] = directions[sample[l]] * time_of(s, sample[l]);
    }
};
// The time at `place` of every sample, which may be -1 or the number of times.
auto times_at = [&](const int32_t* place) {
    alignas(64) Real x[W];
    for (int l = 0; l < W; ++l) x[l] = line[(place[l] + 1) * columns + (share ? 0 : l)];
    Num r;
    std::memcpy(&r, x, sizeof r);
    return r;
};
