// Numbers of LANES samples side by side, and what can be done with them.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#if __GLIBC__ > 2 || __GLIBC_MINOR__ >= 35
#define SIMD __attribute__((simd("notinbranch")))
extern "C" {
SIMD float expf(float) noexcept; SIMD double exp(double) noexcept;
SIMD float logf(float) noexcept; SIMD double log(double) noexcept;
SIMD float sinf(float) noexcept; SIMD double sin(double) noexcept;
SIMD float cosf(float) noexcept; SIMD double cos(double) noexcept;
SIMD float tanf(float) noexcept; SIMD double tan(double) noexcept;
SIMD float sinhf(float) noexcept; SIMD double sinh(double) noexcept;
SIMD float coshf(float) noexcept; SIMD double cosh(double) noexcept;
SIMD float tanhf(float) noexcept; SIMD double tanh(double) noexcept;
SIMD float asinf(float) noexcept; SIMD double asin(double) noexcept;
SIMD float acosf(float) noexcept; SIMD double acos(double) noexcept;
SIMD float atanf(float) noexcept; SIMD double atan(double) noexcept;
SIMD float asinhf(float) noexcept; SIMD double asinh(double) noexcept;
SIMD float acoshf(float) noexcept; SIMD double acosh(double) noexcept;
SIMD float atanhf(float) noexcept; SIMD double atanh(double) noexcept;
SIMD float exp2f(float) noexcept; SIMD double exp2(double) noexcept;
SIMD float expm1f(float) noexcept; SIMD double expm1(double) noexcept;
SIMD float log2f(float) noexcept; SIMD double log2(double) noexcept;
SIMD float log10f(float) noexcept; SIMD double log10(double) noexcept;
SIMD float log1pf(float) noexcept; SIMD double log1p(double) noexcept;
SIMD float erff(float) noexcept; SIMD double erf(double) noexcept;
SIMD float erfcf(float) noexcept; SIMD double erfc(double) noexcept;
SIMD float powf(float, float) noexcept;
SIMD double pow(double, double) noexcept;
SIMD float atan2f(float, float) noexcept;
SIMD double atan2(double, double) noexcept;
}
#endif
#endif

constexpr int W = LANES;

#if LANES == 1
typedef float F32;
typedef double F64;
typedef int32_t B;
typedef int64_t I64;
inline float get(F32 x, int) { return x; }
inline double get(F64 x, int) { return x; }
inline int32_t get(B x, int) { return x; }
inline int64_t get(I64 x, int) { return x; }
inline void put(F32& x, int, float y) { x = y; }
inline void put(F64& x, int, double y) { x = y; }
inline void put(B& x, int, int32_t y) { x = y; }
inline void put(I64& x, int, int64_t y) { x = y; }
inline F32 f32(float x) { return x; }
inline F64 f64(double x) { return x; }
inline I64 i64(int64_t x) { return x; }
inline B truth(int x) { return -x; }
template <class X> inline X choose(B m, X a, X b) { return m ? a : b; }
inline F32 to_F32(F64 x) { return (float)x; }
inline F32 to_F32(I64 x) { return (float)x; }
inline F32 to_F32(B x) { return (float)-x; }
inline F64 to_F64(F32 x) { return (double)x; }
inline F64 to_F64(I64 x) { return (double)x; }
inline F64 to_F64(B x) { return (double)-x; }
inline I64 to_I64(F32 x) { return (int64_t)x; }
inline I64 to_I64(F64 x) { return (int64_t)x; }
inline I64 to_I64(B x) { return (int64_t)-x; }
inline B to_B(F32 x) { return -(x != 0); }
inline B to_B(F64 x) { return -(x != 0); }
inline B to_B(I64 x) { return -(x != 0); }
template <class X> inline B lt(X a, X b) { return -(a < b); }
template <class X> inline B le(X a, X b) { return -(a <= b); }
template <class X> inline B gt(X a, X b) { return -(a > b); }
template <class X> inline B ge(X a, X b) { return -(a >= b); }
template <class X> inline B eq(X a, X b) { return -(a == b); }
template <class X> inline B ne(X a, X b) { return -(a != b); }
#else
typedef float F32 __attribute__((vector_size(4 * W)));
typedef double F64 __attribute__((vector_size(8 * W)));
typedef int32_t B __attribute__((vector_size(4 * W)));
typedef int64_t I64 __attribute__((vector_size(8 * W)));
template <class X> inline auto get(X x, int i) { return x[i]; }
template <class X, class Y> inline void put(X& x, int i, Y y) { x[i] = y; }
inline F32 f32(float x) { return x - F32{}; }
inline F64 f64(double x) { return x - F64{}; }
inline I64 i64(int64_t x) { return x - I64{}; }
inline B truth(int x) { return -x - B{}; }
inline I64 wide(B x) { return __builtin_convertvector(x, I64); }
inline B narrow(I64 x) { return __builtin_convertvector(x, B); }
inline F32 choose(B m, F32 a, F32 b) { return m ? a : b; }
inline F64 choose(B m, F64 a, F64 b) { return wide(m) ? a : b; }
inline I64 choose(B m, I64 a, I64 b) { return wide(m) ? a : b; }
inline B choose(B m, B a, B b) { return m ? a : b; }
inline F32 to_F32(F64 x) { return __builtin_convertvector(x, F32); }
inline F32 to_F32(I64 x) { return __builtin_convertvector(x, F32); }
inline F32 to_F32(B x) { return __builtin_convertvector(-x, F32); }
inline F64 to_F64(F32 x) { return __builtin_convertvector(x, F64); }
inline F64 to_F64(I64 x) { return __builtin_convertvector(x, F64); }
inline F64 to_F64(B x) { return __builtin_convertvector(-x, F64); }
inline I64 to_I64(F32 x) { return __builtin_convertvector(x, I64); }
inline I64 to_I64(F64 x) { return __builtin_convertvector(x, I64); }
inline I64 to_I64(B x) { return wide(-x); }
inline B to_B(F32 x) { return x != 0.0f; }
inline B to_B(F64 x) { return narrow(x != 0.0); }
inline B to_B(I64 x) { return narrow(x != 0); }
#define COMPARE(name, sign) \
    inline B name(F32 a, F32 b) { return a sign b; } \
    inline B name(B a, B b) { return a sign b; } \
    inline B name(F64 a, F64 b) { return narrow(a sign b); } \
    inline B name(I64 a, I64 b) { return narrow(a sign b); }
COMPARE(lt, <) COMPARE(le, <=) COMPARE(gt, >) COMPARE(ge, >=) COMPARE(eq, ==) COMPARE(ne, !=)
#endif

// In memory, where the compiler sees that a loop can be one call of a function for several numbers.
#define UNARY_OF(X, name, f) \
    inline X name(X x) { \
        alignas(64) decltype(get(x, 0)) a[W], r[W]; \
        std::memcpy(a, &x, sizeof x); \
        _Pragma("omp simd") for (int l = 0; l < W; ++l) r[l] = f(a[l]); \
        std::memcpy(&x, r, sizeof x); \
        return x; \
    }
#define BINARY_OF(X, name, f) \
    inline X name(X x, X y) { \
        alignas(64) decltype(get(x, 0)) a[W], b[W], r[W]; \
        std::memcpy(a, &x, sizeof x); \
        std::memcpy(b, &y, sizeof y); \
        _Pragma("omp simd") for (int l = 0; l < W; ++l) r[l] = f(a[l], b[l]); \
        std::memcpy(&x, r, sizeof x); \
        return x; \
    }
#define UNARY(name, f, d) UNARY_OF(F32, name, f) UNARY_OF(F64, name, d)
#define BINARY(name, f, d) BINARY_OF(F32, name, f) BINARY_OF(F64, name, d)
UNARY(exp_, expf, exp)
UNARY(exp2_, exp2f, exp2)
UNARY(expm1_, expm1f, expm1)
UNARY(log_, logf, log)
UNARY(log2_, log2f, log2)
UNARY(log10_, log10f, log10)
UNARY(log1p_, log1pf, log1p)
UNARY(sin_, sinf, sin)
UNARY(cos_, cosf, cos)
UNARY(tan_, tanf, tan)
UNARY(sinh_, sinhf, sinh)
UNARY(cosh_, coshf, cosh)
UNARY(tanh_, tanhf, tanh)
UNARY(asin_, asinf, asin)
UNARY(acos_, acosf, acos)
UNARY(atan_, atanf, atan)
UNARY(asinh_, asinhf, asinh)
UNARY(acosh_, acoshf, acosh)
UNARY(atanh_, atanhf, atanh)
UNARY(sqrt_, sqrtf, sqrt)
UNARY(erf_, erff, erf)
UNARY(erfc_, erfcf, erfc)
UNARY(floor_, floorf, floor)
UNARY(ceil_, ceilf, ceil)
UNARY(trunc_, truncf, trunc)
UNARY(absolute, __builtin_fabsf, __builtin_fabs)
UNARY(round_, __builtin_rintf, __builtin_rint)
BINARY(power, powf, pow)
BINARY(arctan2, atan2f, atan2)
BINARY(copysign, __builtin_copysignf, __builtin_copysign)
inline I64 absolute(I64 x) { return choose(lt(x, i64(0)), -x, x); }
inline F32 one_like(F32) { return f32(1.0f); }
inline F64 one_like(F64) { return f64(1.0); }
// A NaN wins, whichever side it is on.
template <class X> inline X maximum(X a, X b) { return choose(gt(a, b) | ne(a, a), a, b); }
template <class X> inline X minimum(X a, X b) { return choose(lt(a, b) | ne(a, a), a, b); }
template <class X> inline X inverse(X x) { return one_like(x) / x; }
template <class X> inline X rsqrt(X x) { return inverse(sqrt_(x)); }
template <class X> inline X relu(X x) { X zero = one_like(x) - one_like(x); return choose(le(x, zero), zero, x); }
template <class X> inline X sigmoid(X x) { return inverse(one_like(x) + exp_(-x)); }
template <class X> inline X sign(X x) {
    X zero = one_like(x) - one_like(x);
    return choose(gt(x, zero), one_like(x), choose(lt(x, zero), -one_like(x), x));
}
template <int n, class X> inline X integer_power(X x) {
    if constexpr (n == 1) return x;
    else if constexpr (n % 2) return x * integer_power<n - 1>(x);
    else { X half = integer_power<n / 2>(x); return half * half; }
}
// Numbers of the samples of a group; those beyond the batch repeat the last one.
template <class X, class Y> inline void load(X& x, const Y* from, int64_t stride, const int64_t* sample) {
    for (int l = 0; l < W; ++l) put(x, l, (Y)from[sample[l] * stride]);
}
inline void load(B& x, const bool* from, int64_t stride, const int64_t* sample) {
    for (int l = 0; l < W; ++l) put(x, l, -(int32_t)from[sample[l] * stride]);
}
template <class X, class Y> inline void store(X x, Y* to, int64_t stride, int64_t first, int count) {
    for (int l = 0; l < count; ++l) to[(first + l) * stride] = (Y)get(x, l);
}
inline void store(B x, bool* to, int64_t stride, int64_t first, int count) {
    alignas(64) int32_t m[W];
    alignas(64) bool r[W];
    std::memcpy(m, &x, sizeof x);
    _Pragma("omp simd") for (int l = 0; l < W; ++l) r[l] = m[l] != 0;
    if (stride == 1 && count == W) std::memcpy(to + first, r, sizeof r);
    else for (int l = 0; l < count; ++l) to[(first + l) * stride] = r[l];
}
template <class X, class Y> inline void store_row(X x, Y* to, int count) {
    if (count == W) std::memcpy(to, &x, sizeof(x));
    else for (int l = 0; l < count; ++l) to[l] = get(x, l);
}
template <class X, class Y> inline void load_row(X& x, const Y* from, int count) {
    if (count == W) std::memcpy(&x, from, sizeof(x));
    else for (int l = 0; l < W; ++l) put(x, l, from[l < count ? l : count - 1]);
}
template <class X, class Y> inline void spill(X x, Y* to) { std::memcpy(to, &x, sizeof x); }
inline bool any(B x) {
    alignas(64) int32_t m[W], r = 0;
    std::memcpy(m, &x, sizeof x);
    _Pragma("omp simd reduction(|:r)") for (int l = 0; l < W; ++l) r |= m[l];
    return r != 0;
}
